"""Collections that earlier versions made are still recognised."""

import pytest

from splade_integrations.milvus.fingerprint import check_encoder, description_with, recorded
from splade_integrations.models.fingerprint import Fingerprint

# Commit 23b5478 stored fingerprints in this form: in a property on milvus-lite 3, and in the description elsewhere.
STORED = '{"model": "org/x", "weights": "21eaada296b4dedd", "document_pooling_strategy": "max", "max_length": 128}'
COLLECTIONS = [
    {"collection_name": "a", "properties": {"splade_integrations.encoder": STORED}},
    {"collection_name": "a", "description": f"My texts.\nsplade_integrations.encoder={STORED}", "properties": {}},
]


@pytest.mark.parametrize("collection", COLLECTIONS)
def test_a_stored_fingerprint_is_read(collection):
    kept = recorded(collection)
    assert (kept.model, kept.weights, kept.max_length) == ("org/x", "21eaada296b4dedd", 128)
    check_encoder(collection, "a.db", Fingerprint.from_json(STORED), allow_other_encoder=False)
    other = Fingerprint(model="org/y", weights="00")
    with pytest.raises(ValueError, match=r"'org/x' \(weights '21eaada296b4dedd'.*'org/y' \(weights '00'"):
        check_encoder(collection, "a.db", other, allow_other_encoder=False)
    check_encoder(collection, "a.db", other, allow_other_encoder=True)


def test_a_description_keeps_its_words_and_the_stored_form():
    assert description_with(Fingerprint.from_json(STORED), "My texts.") == COLLECTIONS[1]["description"]
    assert description_with(None, "My texts.") == "My texts."
