"""Tests of fingerprints: their stored form, which users' collections contain, and the comparison of two of them."""

import json
from dataclasses import fields, replace

from splade_integrations import Pruning
from splade_integrations.models.fingerprint import Fingerprint, RoleFingerprint, fingerprint_of
from splade_integrations.models.spec import TransformerSpec

# Commit 23b5478 wrote this, before fingerprints were a class. Every later version must be able to read it.
STORED = (
    '{"model": "org/x", "commit": "0123456789abcdef", "weights": "21eaada296b4dedd", "document_prompt": "passage: ", '
    '"document_pooling_strategy": "max", "document_activation_function": "relu", "document_lower_case": true, '
    '"query_prompt": "query: ", "query_token_weights": "idf.json", "document_max_active_dims": 64, '
    '"document_min_weight": 0.1, "document_mass": 0.9, "special_terms": "keep", "max_length": 128, "max_windows": 3}'
)
FINGERPRINT = Fingerprint(
    model="org/x",
    commit="0123456789abcdef",
    weights="21eaada296b4dedd",
    document=RoleFingerprint("passage: ", "max", "relu", lower_case=True),
    query=RoleFingerprint("query: ", token_weights="idf.json"),
    document_pruning=Pruning(max_active_dims=64, min_weight=0.1, mass=0.9),
    special_terms="keep",
    max_length=128,
    max_windows=3,
)


def test_the_stored_form_stays_as_it_is():
    assert Fingerprint.from_json(STORED) == FINGERPRINT
    assert FINGERPRINT.to_json() == STORED


def test_defaults_are_not_stored():
    assert Fingerprint(weights="a", document_pruning=Pruning(min_weight=0.0)).to_json() == '{"weights": "a"}'
    assert Fingerprint.from_json("{}") == Fingerprint()


def test_what_a_later_version_stored_is_kept_and_compared():
    later = Fingerprint.from_json(json.dumps(json.loads(STORED) | {"document_stride": 32}))
    assert later.differences(FINGERPRINT) == FINGERPRINT.differences(later) == ["document_stride"]
    assert json.loads(later.to_json())["document_stride"] == 32


def test_the_share_of_the_largest_weight_is_part_of_it():
    pruned = replace(FINGERPRINT, document_pruning=replace(FINGERPRINT.document_pruning, max_ratio=0.1))
    assert pruned.differences(FINGERPRINT) == FINGERPRINT.differences(pruned) == ["document_max_ratio"]
    assert Fingerprint.from_json(pruned.to_json()) == pruned
    assert FINGERPRINT.query_differences(pruned) == []


def test_names_and_commits_are_no_difference():
    assert FINGERPRINT.differences(replace(FINGERPRINT, model="/a/folder", commit=None)) == []


def test_documents_and_queries_differ_apart():
    other_documents = replace(
        FINGERPRINT, document=RoleFingerprint(), document_pruning=Pruning(), max_length=64, max_windows=None
    )
    assert FINGERPRINT.query_differences(other_documents) == []
    assert "document_mass" in FINGERPRINT.differences(other_documents)
    other_queries = replace(FINGERPRINT, query=RoleFingerprint(), weights="b", special_terms="drop")
    expected = ["weights", "query_prompt", "query_token_weights", "special_terms"]
    assert FINGERPRINT.query_differences(other_queries) == FINGERPRINT.differences(other_queries) == expected


def test_it_is_shown_with_its_commit():
    assert FINGERPRINT.describe(["max_length"]) == "'org/x' at 0123456789ab (max_length 128)"


def test_every_setting_of_a_transformer_is_part_of_it():
    settings = {setting.name for setting in fields(TransformerSpec)} - {"repository", "folder", "max_length"}
    assert settings <= {setting.name for setting in fields(RoleFingerprint)}


def test_an_encoder_may_state_none(encoder):
    assert fingerprint_of(encoder) == encoder.fingerprint
    assert fingerprint_of(object()) is None
