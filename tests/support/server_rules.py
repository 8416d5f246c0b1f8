"""A model of how a Milvus server evaluates filter expressions: operator precedence, and rules for JSON values.

The model follows Milvus's Plan.g4 and C++ sources (UnaryExpr, TermExpr, JsonContainsExpr, ExistsExpr). It has not been
compared with a server. In versions up to 2.6.x, a comparison with an absent key, or with a value of another kind, is
true for `!=` and false for all other operators. In later versions, such a comparison is unknown (None).
"""

import re

TOKENS = re.compile(
    r"""\s*(?:(?P<path>(?:\$meta|[A-Za-z_]\w*)\["[^"\\\[\]]+"\])|(?P<text>"(?:[^"\\\r\n]|\\.)*")"""
    r"""|(?P<number>-?(?:\d+\.?\d*(?:e[+-]?\d+)?))|(?P<word>[A-Za-z_]\w*)|(?P<sign>==|!=|<=|>=|[<>()\[\],]))"""
)
ESCAPES = re.compile(r"\\(U[0-9a-f]{8}|.)", re.DOTALL)


def answer(expr, metadata, unknowns):
    """Return True, False or None (unknown) for a row with this metadata. `unknowns` selects the rule after 2.6.x."""
    tokens, end = [], 0
    while end < len(expr):
        match = TOKENS.match(expr, end)
        assert match, f"no token at {expr[end:]!r}"
        tokens.append((match.lastgroup, match[match.lastgroup]))
        end = match.end()
    parser = _Parser(tokens, metadata, unknowns)
    value = parser.either()
    assert not parser.tokens, f"left over: {parser.tokens}"
    return value


class _Parser:
    def __init__(self, tokens, metadata, unknowns):
        self.tokens, self.metadata, self.unknown = tokens[::-1], metadata, None if unknowns else False
        self.unknowns = unknowns

    def take(self, *expected):
        kind, text = self.tokens.pop()
        assert not expected or text in expected, f"{expected} expected, got {text}"
        return kind, text

    def next_is(self, *texts):
        return bool(self.tokens) and self.tokens[-1][1] in texts

    def either(self):
        values = [self.both()]
        while self.next_is("or"):
            self.take()
            values.append(self.both())
        return True if True in values else None if None in values else False

    def both(self):
        values = [self.one()]
        while self.next_is("and"):
            self.take()
            values.append(self.one())
        return False if False in values else None if None in values else True

    def one(self):
        if self.next_is("not"):  # "not" binds more tightly than a comparison
            self.take()
            assert self.next_is("(")
            value = self.one()
            return None if value is None else not value
        if self.next_is("("):
            self.take()
            value = self.either()
            self.take(")")
            return value
        if self.next_is("exists"):
            self.take()
            value = self.value()
            return not is_nothing(value) if self.unknowns else value is not None
        if self.tokens[-1][0] == "word":
            name = self.take()[1]
            return self.function(name) if self.next_is("(") else self.comparison("a primary key")
        return self.comparison(self.value())

    def value(self):
        kind, text = self.take()
        assert kind == "path", text
        return self.metadata.get(text.split('"')[1])

    def literal(self):
        kind, text = self.take()
        if text == "[":
            items = []
            while not self.next_is("]"):
                items.append(self.literal())
                if self.next_is(","):
                    self.take()
            self.take("]")
            return items
        if kind == "text":
            return ESCAPES.sub(_unescaped, text[1:-1])
        return (
            {"true": True, "false": False}[text]
            if kind == "word"
            else float(text)
            if re.search("[.e]", text)
            else int(text)
        )

    def function(self, name):
        self.take("(")
        value = self.value()
        if name == "array_length":
            self.take(")")
            return self.comparison(len(value) if isinstance(value, list) else None if self.unknowns else 0)
        self.take(",")
        asked = self.literal()
        self.take(")")
        if not isinstance(value, list):
            return self.unknown
        held = [
            any(_kind(item) == _kind(one) and item == one for item in value)
            for one in (asked if type(asked) is list else [asked])
        ]
        assert len({_kind(one) for one in asked} if type(asked) is list else {1}) == 1
        return {"json_contains": all, "json_contains_all": all, "json_contains_any": any}[name](held)

    def comparison(self, value):
        sign = self.take()[1]
        if sign == "not":
            self.take("in")
            found = self.among(value)
            return None if found is None else not found
        if sign == "in":
            return self.among(value)
        operand = self.literal()
        if sign == "like":
            return self.unknown if _kind(value) != "text" else _like(operand, value)
        if _kind(value) != _kind(operand):
            return sign == "!=" if not self.unknowns else None
        return {
            "==": lambda: value == operand,
            "!=": lambda: value != operand,
            "<": lambda: value < operand,
            "<=": lambda: value <= operand,
            ">": lambda: value > operand,
            ">=": lambda: value >= operand,
        }[sign]()

    def among(self, value):
        members = self.literal()
        assert len({type(member) for member in members}) == 1, "Milvus casts all members to the first member's type"
        return value in members if _kind(value) == _kind(members[0]) else self.unknown


def _kind(value):
    return {bool: "truth", int: "number", float: "number", str: "text", list: "list", dict: "object"}.get(
        type(value), "null"
    )


def is_nothing(value):
    """Return whether Json::exist treats a value as absent.

    Such a value is null, or a list or an object that holds only such values.
    """
    if isinstance(value, (list, dict)):
        return all(is_nothing(each) for each in (value.values() if isinstance(value, dict) else value))
    return value is None


def _unescaped(match):
    code = match[1]
    return chr(int(code[1:], 16)) if len(code) == 9 else {"n": "\n", "r": "\r", "t": "\t"}.get(code, code)


def _like(pattern, text):
    made, at = "", 0
    while at < len(pattern):
        if pattern[at] == "\\":
            at += 1
            made += re.escape(pattern[at])
        else:
            made += {"%": ".*", "_": "."}.get(pattern[at], re.escape(pattern[at]))
        at += 1
    return re.fullmatch(made, text, re.DOTALL) is not None
