"""Whether what was read from a file is what a TypedDict promises."""

from typing import get_args, get_origin, get_type_hints

from typing_extensions import NotRequired, is_typeddict


def misfits(value, kind, place: str = "metrics") -> list[str]:
    """Where `value`, as read from a file, is not what the type `kind` promises."""
    if get_origin(kind) is NotRequired:
        kind = get_args(kind)[0]
    if is_typeddict(kind):
        hints = get_type_hints(kind, include_extras=True)
        unknown = [f"{place}.{key} is not declared" for key in value.keys() - hints.keys()]
        missing = [f"{place}.{key} is missing" for key in kind.__required_keys__ - value.keys()]
        return unknown + missing + [m for key in value for m in misfits(value[key], hints.get(key), f"{place}.{key}")]
    if get_origin(kind) is dict:
        return [m for key, item in value.items() for m in misfits(item, get_args(kind)[1], f"{place}.{key}")]
    if get_origin(kind) is list:
        return [m for item in value for m in misfits(item, get_args(kind)[0], f"{place}[]")]
    kinds = {float: (float, int), int: int, str: str, bool: bool}
    wanted = kinds.get(kind)
    return [] if wanted is None or isinstance(value, wanted) else [f"{place} is {value!r}, no {kind.__name__}"]
