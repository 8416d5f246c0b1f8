"""The law of filters decides which metadata satisfies a dict of conditions. It shares no code with the package."""

import json


def satisfies(conditions, metadata):
    """Return whether metadata satisfies all entries of a dict of conditions. Each condition is either true or false."""
    return all(_entry(name, value, metadata) for name, value in conditions.items())


def _entry(name, value, metadata):
    if name == "$and":
        return all(satisfies(each, metadata) for each in value)
    if name == "$or":
        return any(satisfies(each, metadata) for each in value)
    if name == "$not":
        return not satisfies(value, metadata)
    if not isinstance(value, dict):
        value = {"$eq": value}
    return all(_operation(operator, operand, metadata.get(name)) for operator, operand in value.items())


def _operation(operator, operand, held):
    """Return whether a value satisfies an operator.

    None stands for an absent key and for null. It satisfies $ne, $nin, {"$exists": False} and {"$is_empty": True}. $not
    negates the result of the operators in it. None does not satisfy any other operator.
    """
    match operator:
        case "$not":
            return not all(_operation(inner, value, held) for inner, value in operand.items())
        case "$ne":
            return held is None or not equal(held, operand)
        case "$nin":
            return held is None or not any(equal(held, each) for each in operand)
        case "$exists":
            return (held is not None) == operand
        case "$is_empty":
            return (held in (None, "") or held == []) == operand
    if held is None:
        return False
    texts, lists = isinstance(held, str), isinstance(held, list)
    members = operand if isinstance(operand, list) else [operand]
    match operator:
        case "$eq" | "$in":
            return any(equal(held, each) for each in (members if operator == "$in" else [operand]))
        case "$gt" | "$gte" | "$lt" | "$lte":
            if kind(held) != kind(operand) or kind(held) not in ("text", "number", "truth"):
                return False
            return {"$gt": held > operand, "$gte": held >= operand, "$lt": held < operand, "$lte": held <= operand}[
                operator
            ]
        case "$contains":
            return lists and any(equal(each, operand) for each in held)
        case "$any":
            return lists and any(equal(each, member) for each in held for member in members)
        case "$all":
            return lists and all(any(equal(each, member) for each in held) for member in members)
        case "$text_match":
            return texts and operand in held
        case "$text_match_insensitive":
            return texts and operand.lower() in held.lower()
    raise AssertionError(operator)


def kind(value):
    names = {
        type(None): "null",
        bool: "truth",
        int: "number",
        float: "number",
        str: "text",
        list: "list",
        dict: "object",
    }
    return names[type(value)]


def equal(left, right):
    """Return whether two values are equal in JSON: true does not equal 1, but 1 equals 1.0."""
    return _canonical(left) == _canonical(right)


def _canonical(value):
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, list):
        return ("list", *map(_canonical, value))
    if isinstance(value, dict):
        return ("object", *((key, _canonical(value[key])) for key in sorted(value)))
    return (kind(value), json.dumps(value))
