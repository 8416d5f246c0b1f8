"""Tests of filters: in Python and in each engine, they match the rows that the law of filters names.

The law of filters is tests/support/predicate.py. An engine is a kind of Milvus, such as milvus-lite 3 or a server.
"""

import collections
import os
import random
import uuid

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from pymilvus import DataType, MilvusClient

from splade_integrations.milvus.filters import (
    OPERATORS,
    And,
    Compare,
    Engine,
    FilterError,
    Layout,
    Not,
    Or,
    from_dict,
    ids_expr,
    make_plan,
    matching_keys,
    quote,
    to_expr,
)
from tests.support.places import PLACES, server_or_skip
from tests.support.predicate import satisfies
from tests.support.server_rules import answer, is_nothing

# The number of random filters for each engine and layout. They add up to about 5 000 in `make test`. FILTER_CASES=5000
# tests 5 000 on each engine and layout, which takes about three minutes for an engine.
CASES = int(os.environ.get("FILTER_CASES", "300"))
PURE_CASES = 1500
# The number of filters in one example. Hypothesis's overhead is per example.
BATCH = 10

PLAIN_KEYS = ["tenant", "year", "tags", "a b", "a/b", "a~b", "a.b", "0", "é", "漢字", "k$", "not", "text", "metadata"]
ODD_KEYS = ['quo"te', "it's", "back\\slash", "br[ack]", "", "new\nline", "tab\t", "𠀀", "`{x}`"]
TEXTS = [
    "",
    "a",
    "A",
    "ab",
    "a b",
    "1",
    "true",
    "a%b",
    "a_b",
    "axb",
    "a\\b",
    "a\\%b",
    'a"b',
    "a'b",
    "a\nb",
    "a\tb",
    "[]",
]
TEXTS += [
    "[1]",
    '["a"]',
    "null",
    "é",
    "漢",
    "𠀀",
    "😀",
    "' or 1 == 1",
    '" or 1 == 1 or "',
    "%",
    "_",
    "\\",
    "\x01",
    "(a.*)",
]
NUMBERS = [0, 1, 2, -1, 1.0, 0.0, 0.5, -0.5, 1e-9, 3, 10, 1999, 2001.0, 2**53, -(2**53), 2**63 - 1, -(2**62), 1e300]
SCALARS = [True, False, *TEXTS, *NUMBERS]
LISTS = [
    [],
    ["a"],
    ["a", "b"],
    [1],
    [1.0],
    [True],
    [0, False],
    [0.5, "a"],
    [None],
    [[1]],
    [{"a": 1}],
    ["a\nb"],
    ["%", 2],
]
OBJECTS = [{}, {"a": 1}, {"tenant": "a"}, {"a": {"b": [True]}}]
STORED = [None, *SCALARS, *LISTS, *OBJECTS]

scalars = st.sampled_from(SCALARS) | st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=4
)
scalars |= st.integers(-(2**53), 2**53) | st.floats(-1e6, 1e6)
anything = st.one_of(*[scalars] * 8, st.none(), st.sampled_from(LISTS), st.sampled_from(OBJECTS))
keys = st.one_of(
    *[st.sampled_from(PLAIN_KEYS[:6])] * 3, *[st.sampled_from(PLAIN_KEYS)] * 3, st.sampled_from(PLAIN_KEYS + ODD_KEYS)
)
lists = st.lists(scalars, max_size=4) | st.lists(anything, max_size=3)
operands = {
    **dict.fromkeys(["$eq", "$gt", "$gte", "$lt", "$lte", "$contains"], anything),
    "$ne": anything.filter(lambda value: value is not None),
    "$in": lists,
    "$nin": lists.filter(lambda values: None not in values),
    "$any": lists,
    "$all": lists,
    **dict.fromkeys(["$exists", "$is_empty"], st.booleans()),
    "$text_match": st.sampled_from(TEXTS) | st.text("ab%_\\ é", max_size=3),
    "$text_match_insensitive": st.sampled_from(TEXTS),
}
OPERATORS_ASKED = [name for name in operands if name != "$text_match_insensitive"] * 4 + ["$text_match_insensitive"]
operations = st.sampled_from(OPERATORS_ASKED).flatmap(lambda name: operands[name].map(lambda operand: {name: operand}))
leaves = st.builds(
    lambda key, operation: {key: operation}, keys, operations | operations.map(lambda each: {"$not": each})
)
leaves |= st.builds(lambda key, value: {key: value}, keys, scalars)
conditions = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(
            lambda name, each: {name: each}, st.sampled_from(["$and", "$or"]), st.lists(inner, min_size=1, max_size=3)
        ),
        inner.map(lambda each: {"$not": each}),
        st.builds(lambda one, other: one | other, inner, inner),
    ),
    max_leaves=5,
)
batches = st.lists(conditions, min_size=BATCH, max_size=BATCH)


def documents(many=120, keys_of=(*PLAIN_KEYS, *ODD_KEYS)):
    """Return metadata of many documents. Every value occurs under some keys, and no key occurs in all documents."""
    chance = random.Random(7)
    made = [{}]
    for number in range(many - 1):
        held = {key: chance.choice(STORED) for key in chance.sample(keys_of, chance.randint(1, len(keys_of)))}
        held["tenant"] = STORED[number % len(STORED)]
        made.append(held)
    return made


DOCUMENTS = documents()
quick = settings(
    max_examples=CASES,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate, Phase.shrink],
)


def test_the_law_holds_in_python():
    @seed(1)
    @settings(quick, max_examples=PURE_CASES // BATCH)
    @given(batches)
    def check(batch):
        for asked in batch:
            made = from_dict(asked)
            assert [made.matches(each) for each in DOCUMENTS] == [satisfies(asked, each) for each in DOCUMENTS], asked

    check()


class Store:
    """A collection that holds DOCUMENTS, with methods that find them by a filter."""

    def __init__(self, client, layout, fields, documents=None):
        self.engine = engine_of(client)
        self.client, self.layout, self.name = client, layout, f"filters_{uuid.uuid4().hex}"
        schema = client.create_schema(auto_id=False, enable_dynamic_field=layout.metadata is None)
        schema.add_field("pk", DataType.VARCHAR, max_length=200, is_primary=True)
        if layout.metadata is not None:
            schema.add_field(layout.metadata, DataType.JSON)
        for name, kind in layout.columns.items():
            extra = {"max_length": 200} if kind == DataType.VARCHAR else {}
            schema.add_field(name, DataType(kind), nullable=self.engine is not Engine.LITE2, **extra)
        schema.add_field("dense", DataType.FLOAT_VECTOR, dim=2)
        index = client.prepare_index_params()
        index.add_index("dense", index_type="FLAT", metric_type="COSINE")
        for name in layout.columns if self.engine is not Engine.LITE2 else ():
            index.add_index(name, index_type="INVERTED")
        client.create_collection(self.name, schema=schema, index_params=index, consistency_level="Strong")
        documents = documents or {f"row'{number}": metadata for number, metadata in enumerate(DOCUMENTS)}
        self.rows = {key: fields(metadata) for key, metadata in documents.items()}
        rows = [{"pk": key, "dense": [1.0, 0.0], **row} for key, row in self.rows.items()]
        client.insert(self.name, rows[: len(rows) // 2])
        client.flush(self.name)  # Milvus filters rows on disk and in memory with different code
        client.insert(self.name, rows[len(rows) // 2 :])
        client.load_collection(self.name)

    def metadata(self, key):
        row = self.rows[key]
        return row if self.layout.metadata is None else row[self.layout.metadata]

    def keys(self, expr):
        return {row["pk"] for row in self.client.query(self.name, filter=expr, output_fields=["pk"], limit=1000)}

    def found(self, asked):
        """Return the primary keys that the filter finds, and whether rows had to be checked in Python."""
        plan = make_plan(from_dict(asked), self.layout, self.engine)
        if plan.doubtful is None:
            return self.keys(plan.expr), False
        looked_at = self.keys(plan.doubtful)
        return self.keys(plan.resolve((key, self.metadata(key), self.rows[key]) for key in looked_at)), True

    def reached(self, asked):
        return self.keys(make_plan(from_dict(asked), self.layout, self.engine).reach)


def engine_of(client):
    try:
        return Engine.of(client.get_server_version())
    except Exception:  # milvus-lite 2 lacks this call
        return Engine.LITE2


@pytest.fixture(scope="module", params=PLACES)
def client(request, tmp_path_factory):
    if request.param == "milvus-lite":
        made = MilvusClient(str(tmp_path_factory.mktemp("filters") / "filters.db"))
    else:
        made = MilvusClient(**server_or_skip())
    yield made
    made.close()


@pytest.fixture(scope="module")
def store(client):
    return Store(client, Layout(), lambda metadata: {"metadata": metadata})


def check_against_the_law(store, asked_for=batches, share_refused=0.05):
    """Assert that random filters find the rows that the law names, and that only a small share is refused."""
    refused, counts = collections.Counter(), collections.Counter()

    @seed(2)
    @settings(quick, max_examples=CASES // BATCH)
    @given(asked_for)
    def check(batch):
        for asked in batch:
            counts["asked"] += 1
            try:
                found, looked = store.found(asked)
            except FilterError as err:
                refused[str(err).partition(" exactly")[0]] += 1
                continue
            counts["looked at rows"] += looked
            expected = {key for key in store.rows if satisfies(asked, store.metadata(key))}
            assert found == expected, asked

    check()
    print(store.engine.value, dict(counts), refused.most_common(20))
    assert refused.total() <= share_refused * counts["asked"], refused


def test_each_engine_finds_what_the_law_says(store):
    check_against_the_law(store)


@pytest.mark.parametrize("unknowns", [False, True], ids=["up to 2.6", "with unknowns"])
def test_a_server_says_what_the_law_says_by_the_rules_of_its_source(unknowns):
    """If comparisons can be unknown, no expression tells an object from an absent key, so no objects are stored."""
    refused = collections.Counter()

    def told_apart(value):
        lost = isinstance(value, dict) or (value not in (None, []) and is_nothing(value))
        return not (unknowns and lost)

    stored = [{key: value for key, value in each.items() if told_apart(value)} for each in DOCUMENTS]

    @seed(3)
    @settings(quick, max_examples=CASES // BATCH)
    @given(batches)
    def check(batch):
        for asked in batch:
            try:
                expr = to_expr(from_dict(asked), Layout(), Engine.SERVER)
            except FilterError as err:
                refused[str(err).partition("exactly: ")[2]] += 1
                continue
            for metadata in stored:
                if unknowns and "$exists" in str(asked) and [] in metadata.values():
                    continue
                assert not expr or (answer(expr, metadata, unknowns) is True) == satisfies(asked, metadata), (
                    asked,
                    metadata,
                )

    check()


def test_dynamic_keys_are_asked_by_the_same_law(client):
    """Test the layout of the collections that the frameworks' stores make."""
    check_against_the_law(Store(client, Layout(metadata=None), dict))


COLUMN_VALUES = {
    "text": [text for text in TEXTS if text.isprintable()] + ["a\nb", "\n", "a\tb"],
    "year": [0, 1, -1, 3, 1999, 2001, 2**53, 2**63 - 1, -(2**62)],
    "score": [0.0, 1.0, 0.5, -0.5, 1e-9, 1e300, 1999.0],
    "flag": [True, False],
}
COLUMNS = {"text": DataType.VARCHAR, "year": DataType.INT64, "score": DataType.DOUBLE, "flag": DataType.BOOL}


@pytest.fixture(scope="module")
def store_with_columns(client):
    chance, absent = (
        random.Random(9),
        [None] * (engine_of(client) is not Engine.LITE2),
    )  # milvus-lite 2 has no nulls in columns

    def fields(metadata):
        typed = {name: chance.choice(values + absent) for name, values in COLUMN_VALUES.items()}
        return {**typed, "metadata": {**metadata, **typed}}

    return Store(client, Layout(columns=COLUMNS), fields)


column_keys = st.sampled_from([*COLUMN_VALUES, *COLUMN_VALUES, "tenant", "tags"])
column_leaves = st.builds(lambda key, operation: {key: operation}, column_keys, operations)
column_leaves |= st.sampled_from(list(COLUMN_VALUES)).flatmap(
    lambda key: st.builds(
        lambda operator, value: {key: {operator: value}},
        st.sampled_from(["$eq", "$ne", "$gt", "$gte", "$lt", "$lte"]),
        st.sampled_from(COLUMN_VALUES[key]) | scalars,
    )
)
column_conditions = st.recursive(
    column_leaves,
    lambda inner: st.one_of(
        st.builds(
            lambda name, each: {name: each}, st.sampled_from(["$and", "$or"]), st.lists(inner, min_size=1, max_size=3)
        ),
        inner.map(lambda each: {"$not": each}),
    ),
    max_leaves=4,
)


def test_dynamic_keys_of_one_kind_each_are_asked_by_the_same_law(client):
    """If all values of a dynamic key have one kind, milvus-lite 3 stores them in a column. Columns have other rules."""
    documents = {
        f"row{number}": {key: values[number % len(values)] for key, values in COLUMN_VALUES.items() if number % 7}
        for number in range(60)
    }
    store = Store(client, Layout(metadata=None), dict, documents)
    check_against_the_law(store, st.lists(column_conditions, min_size=BATCH, max_size=BATCH))


def test_typed_columns_are_asked_by_the_same_law(store_with_columns):
    check_against_the_law(store_with_columns, st.lists(column_conditions, min_size=BATCH, max_size=BATCH))


def test_a_deletion_looks_at_every_row_that_may_match(store):
    """A deletion checks in Python each row that matches the filter's `reach`. The result must be what the law names."""
    for asked in [
        {"tenant": {"$lt": 5}},
        {"$not": {"year": {"$gt": 1}}},
        {"tags": {"$contains": True}},
        {"tenant": {"$text_match": "a_b"}},
        {"tenant": {"$text_match_insensitive": "A"}},
        {'quo"te': {"$ne": 1}},
        {"$or": [{"tenant": True}, {"tags": {"$is_empty": True}}]},
    ]:
        rows = [(key, store.metadata(key)) for key in store.reached(asked)]
        expected = {key for key in store.rows if satisfies(asked, store.metadata(key))}
        assert set(matching_keys(from_dict(asked), rows)) == expected, asked
        assert expected, asked


def test_fields_of_the_collection_are_asked_by_name(store):
    ids = ["row'1", "row'2", "row'77", "no such row"]
    asked = Compare("pk", "in", ids, column=True) & ~from_dict({"tenant": store.metadata("row'2")["tenant"]})
    plan = make_plan(asked, store.layout, store.engine)
    rows = [(key, store.metadata(key)) for key in (store.keys(plan.doubtful) if plan.doubtful is not None else [])]
    assert store.keys(plan.expr if plan.doubtful is None else plan.resolve(rows)) == {"row'1", "row'77"}
    layout = Layout(own={"doc_id": DataType.VARCHAR})
    assert to_expr(Compare("doc_id", "eq", "a", column=True), layout, store.engine) == 'doc_id in ["a"]'
    assert to_expr(Compare("doc_id", "eq", "a"), layout, store.engine) == 'metadata["doc_id"] == "a"'
    with pytest.raises(FilterError, match="'nosuch' of the comparison 'eq' must be one of the collection's fields: pk"):
        make_plan(Compare("nosuch", "eq", 1, column=True), store.layout, store.engine)


ODD_IDS = ["it's", "it''s", 'a"b', "C:\\new\\table", "\\", "tab\t", "漢字", "😀", "a%_b", "] or [", "\x01", "a", "b"]


def test_ids_find_exactly_their_row(client):
    store = Store(client, Layout(), lambda metadata: {"metadata": metadata}, {key: {} for key in ODD_IDS})
    for key in ODD_IDS:
        assert store.keys(ids_expr("pk", [key], store.engine)) == {key}
        assert store.keys(f"pk == {quote(key)}") == {key}
        assert store.keys(ids_expr("pk", [key], store.engine, negated=True)) == {*ODD_IDS} - {key}
    assert store.keys(ids_expr("pk", ODD_IDS[:5], store.engine)) == {*ODD_IDS[:5]}


def test_no_ids_match_no_row(store):
    assert store.keys(ids_expr("pk", [], store.engine)) == set()
    assert ids_expr("pk", [], negated=True) == ""
    assert ids_expr("id", [], is_text=False) == "(id == 0 and id == 1)"
    assert store.keys(to_expr(Or(), store.layout, store.engine)) == set()
    assert to_expr(And(), store.layout, store.engine) == ""


@pytest.mark.parametrize("wrong", [1.5, None, True, b"a"])
def test_ids_are_strings_or_ints(wrong):
    with pytest.raises(TypeError, match=r"ids\[1\] must be a str or an int"):
        ids_expr("pk", ["a", wrong])


def test_milvus_lite_2_reads_no_line_break():
    with pytest.raises(FilterError, match=r"ids\[0\] must not hold a line break"):
        ids_expr("pk", ["a\nb"], Engine.LITE2)
    assert ids_expr("pk", ["a\nb"], Engine.LITE3) == 'pk in ["a\\nb"]'


@pytest.mark.parametrize(
    ("version", "engine"),
    [
        ("milvus_lite-3.2.2", Engine.LITE3),
        ("milvus-lite-2.5.1", Engine.LITE2),
        (None, Engine.LITE2),
        ("v2.6.4", Engine.SERVER),
    ],
)
def test_engines_by_their_version(version, engine):
    assert Engine.of(version) is engine


OPERANDS = [float("nan"), float("inf"), 2**63, -(2**63) - 1, b"a", {1: 2}, {"a": b""}, [{1, 2}], "\ud800", object()]


@pytest.mark.parametrize("operand", OPERANDS, ids=repr)
@pytest.mark.parametrize("operator", ["eq", "ne", "gt", "contains"])
def test_operands_that_are_no_json_are_refused(operator, operand):
    with pytest.raises(FilterError, match=f"The operand of {operator} on 'the key' must"):
        Compare("the key", operator, operand)
    if operator == "eq":
        with pytest.raises(FilterError, match="The operand of in on 'the key' must"):
            from_dict({"the key": {"$in": ["a", operand]}})


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: Compare("k", "like", "a"), "The operator on 'k' must be one of all, any, .*, got 'like'"),
        (lambda: Compare(1, "eq", "a"), "A filter's key must be a str, got int"),
        (lambda: Compare("k\ud800", "eq", "a"), "lone surrogate"),
        (
            lambda: Compare("k", "in", "abc"),
            r"The operand of in on 'k' must be a list, got str. Wrap one value: \['abc'\]",
        ),
        (lambda: Compare("k", "all", 1), "The operand of all on 'k' must be a list, got int"),
        (lambda: Compare("k", "text_match", 1), "The operand of text_match on 'k' must be a str, got int"),
        (lambda: Compare("k", "exists", 1), "The operand of exists on 'k' must be True or False, got 1"),
        (lambda: Compare("k", "is_empty", "no"), "The operand of is_empty on 'k' must be True or False, got 'no'"),
        (
            lambda: Compare("k", "ne"),
            "The operand of ne on 'k' must not be None or contain None, got None. No value equals None",
        ),
        (lambda: Compare("k", "nin", ["a", None]), "The operand of nin on 'k' must not be None or contain None"),
        (lambda: And({"k": 1}), "The operands of And must be filters, got dict at position 0"),
        (lambda: Not("k == 1"), "The operands of Not must be filters, got str"),
        (lambda: from_dict("k == 1"), "A dict filter must have only dicts as its conditions, got str"),
        (lambda: from_dict({"k": {"$regex": "a"}}), "The operator on 'k' must be one of .*, got '\\$regex'"),
        (lambda: from_dict({"k": {"gt": 1}}), "The operator on 'k' must be one of .*, got 'gt'"),
        (lambda: from_dict({"k": {}}), "The operators of 'k' must not be empty"),
        (lambda: from_dict({"$gt": 1}), "An operator without a key must be \\$and, \\$or or \\$not, got '\\$gt'"),
        (lambda: from_dict({"$and": []}), "\\$and must be given a list of one or more dicts"),
        (lambda: from_dict({"$or": {"k": 1}}), "\\$or must be given a list of one or more dicts"),
        (lambda: from_dict({"k": {"$not": 1}}), "\\$not on 'k' must be given a dict of operators, got 1"),
    ],
)
def test_malformed_filters_say_what_is_wrong(made, message):
    with pytest.raises(FilterError, match=message):
        made()


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({'quo"te': 1}, """apply eq exactly to 'quo"te': it has no expression for a key that holds '"'"""),
        ({"br[0]": {"$gt": 1}}, r"apply gt exactly to 'br\[0\]'"),
        ({"back\\slash": {"$exists": True}}, r"apply exists exactly to 'back\\\\slash'"),
        ({"": 1}, "apply eq exactly to '': it has no expression for a key that is empty"),
        ({"k": {"$text_match_insensitive": "a"}}, "apply text_match_insensitive exactly to 'k'"),
        ({"k": {"$in": ["a", [1]]}}, "apply in exactly to 'k': it has no expression for a comparison with null, a"),
    ],
)
def test_a_server_refuses_what_it_cannot_say(asked, message):
    for wrapped in (asked, {"$not": asked}, {"$or": [{"tenant": "a"}, asked]}):
        with pytest.raises(FilterError, match=message):
            make_plan(from_dict(wrapped), Layout(), Engine.SERVER)


@pytest.mark.parametrize("operator", ["in", "nin"])
@pytest.mark.parametrize(
    "values", [TEXTS, [*range(1990, 2010), 1, 0.5], [*TEXTS, True, 1]], ids=["texts", "numbers", "mixed"]
)
def test_long_lists_of_values(store, operator, values):
    asked = {"tenant": {f"${operator}": values}}
    expected = {key for key in store.rows if satisfies(asked, store.metadata(key))}
    assert store.found(asked)[0] == expected
    assert 0 < len(expected) < len(store.rows)


def test_an_inexact_expression_is_not_given_out():
    assert to_expr(from_dict({"year": {"$gt": 1999}}), Layout(), Engine.LITE3) == 'metadata["year"] > 1999'
    with pytest.raises(FilterError, match="milvus-lite 3 cannot apply lt exactly to 'price'"):
        to_expr(from_dict({"tenant": "a", "$not": {"price": {"$lt": 5}}}), Layout(), Engine.LITE3)


def test_filters_are_values():
    one = Compare("k", "in", ["a", {"b": [1]}]) & ~Compare("n", "gt", 1)
    same = And(Compare("k", "in", ("a", {"b": [1]})), Not(Compare("n", "gt", 1)))
    assert one == same
    assert len({one, same, And(), Or()}) == 3
    assert from_dict({}) == And()
    with pytest.raises(AttributeError):
        one.filters = ()


def test_every_operator_of_the_language_is_in_the_random_filters():
    assert {f"${name}" for name in OPERATORS} == set(operands)
