"""Read whole collections without this package's own code, to compare them."""

import json

__all__ = ["dump", "shape"]


def dump(client, name, without=()):
    """Return {partition: {key: row}} of a collection, read without this package."""
    client.load_collection(name)
    described = client.describe_collection(name)
    made = {one for function in described["functions"] for one in function["output_field_names"]}
    fields = [field["name"] for field in described["fields"] if field["name"] not in {*made, *without}]
    key = next(field["name"] for field in described["fields"] if field.get("is_primary"))
    fields += ["$meta"] if described["enable_dynamic_field"] else []
    found = {}
    for partition in client.list_partitions(name):
        rows = client.query(name, filter="", output_fields=fields, limit=16_000, partition_names=[partition])
        plain = [
            {k: v if isinstance(v, str | int | float | dict | list) or v is None else list(v) for k, v in row.items()}
            for row in rows
        ]
        found[partition] = {row[key]: row for row in plain}
    return found


def shape(client, name, without=()):
    """Return the fields, functions and indexes of a collection as JSON, without the fields in `without`."""
    described = client.describe_collection(name)
    fields = [field for field in described["fields"] if field["name"] not in without]
    indexes = {}
    for one in client.list_indexes(name):
        index = client.describe_index(name, one)
        indexes[index["field_name"]] = (index["index_type"], index["metric_type"])
    kept = {field: index for field, index in indexes.items() if field not in without}
    return json.dumps([fields, described["functions"], described["enable_dynamic_field"], kept], default=str)
