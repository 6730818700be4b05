"""Protocol Buffers: messages without a schema, and with the descriptor sets of `--proto`.

Without a schema, numbers of fields are their names, and what a field of bytes is can only be
guessed: text, a message, or bytes.  With one, google.protobuf decodes.

Rules for editors: payloads are hostile and often cut short (snaplen, KEPT).  Depth and number
of fields are bounded, and what is left out is counted in the result.  Decoding costs more
than all the rest of a call and is seldom looked at: it is done when it is.  google.protobuf
is imported only where descriptors are asked for.

Not bbpb, the library for messages without a schema: it takes whole messages only, and a
capture with a snaplen has few of these; on bytes that nest deeply it runs into Python's
limit of recursion.
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any, Final, NamedTuple

from vsockdump.apps.byte_stream import Body, ProtocolError
from vsockdump.apps.message import Value
from vsockdump.apps.registry import DecodeError
from vsockdump.apps.texts import bytes_of
from vsockdump.lazy import Lazy

MOST_DEPTH: Final = 16  # messages within messages
MOST_FIELDS: Final = 500  # of a payload, all its messages together
LEFT_OUT: Final = "(left out)"  # the name that counts what the caps cut
MISSING: Final = "(missing)"  # the name that says so of a message that is cut short

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types; groups are long deprecated
_FIXED: Final = {_FIXED64: 8, _FIXED32: 4}
_PLAUSIBLE: Final = 2047  # numbers of fields in a guess: those of two bytes at most

# --- the wire format ------------------------------------------------------------------------


class Field(NamedTuple):
    """One field, and where in the message it ends; `missing` of its bytes are cut off."""

    number: int
    value: int | bytes
    end: int
    missing: int = 0


def fields_of(data: bytes, whole: bool = True) -> Iterator[Field]:
    """The fields of a message in order; ProtocolError where it is none.

    With `whole` False more of the message has been sent than is there: it may end anywhere.
    """
    at, end = 0, len(data)
    while at < end:
        try:
            key, at = _varint(data, at)
            wire, number = key & 7, key >> 3
            if not 0 < number < 1 << 29:
                raise ProtocolError(f"a protobuf field has the number {number}")
            if wire == _VARINT:
                value, at = _varint(data, at)
                yield Field(number, value, at)
                continue
            size = _FIXED.get(wire, 0)
            if wire == _BYTES:
                size, at = _varint(data, at)
            elif not size:
                raise ProtocolError(f"a protobuf field has the wire type {wire}")
        except IndexError:
            if whole:
                raise ProtocolError("a protobuf message ends within a field") from None
            return
        missing = max(at + size - end, 0)
        if missing and whole:
            raise ProtocolError("a protobuf field is longer than its message")
        if wire == _BYTES:
            yield Field(number, data[at : at + size], at + size, missing)
        elif not missing:
            yield Field(number, int.from_bytes(data[at : at + size], "little"), at + size)
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A varint and where the next byte stands; IndexError where the data ends within it."""
    byte = data[at]
    if byte < 0x80:
        return byte, at + 1
    value = shift = 0
    for at in range(at, at + 10):  # noqa: B020
        byte = data[at]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (1 << 64) - 1, at + 1
        shift += 7
    raise ProtocolError("a protobuf number has more than ten bytes")


# --- without a schema -----------------------------------------------------------------------


class _Budget:
    """How many more fields a payload may show, and how many it could not."""

    def __init__(self) -> None:
        self.left = MOST_FIELDS
        self.left_out = 0

    def spend(self) -> bool:
        """Whether one more field may be shown."""
        if self.left:
            self.left -= 1
            return True
        self.left_out += 1
        return False


def guess(body: Body) -> Mapping[str, Value]:
    """A message of which nothing is known."""
    budget = _Budget()
    try:
        shown = _guess_fields(body.data, body.is_whole, budget, 0)
    except ProtocolError:
        return bytes_of(body)
    return _with_counts(shown, body, budget)


def _with_counts(shown: dict[str, Value], body: Body, budget: _Budget) -> Mapping[str, Value]:
    if budget.left_out:
        shown[LEFT_OUT] = f"{budget.left_out} fields beyond the limit of {MOST_FIELDS}"
    if not body.is_whole:
        shown[MISSING] = "the rest"
    return shown


def _guess_fields(data: bytes, whole: bool, budget: _Budget, depth: int) -> dict[str, Value]:
    shown: dict[str, Value] = {}
    for field in fields_of(data, whole):
        if field.number > _PLAUSIBLE:
            raise ProtocolError("no plausible message")
        if budget.spend():
            _put(shown, str(field.number), _guess_value(field, budget, depth))
    return shown


def _put(shown: dict[str, Value], name: str, value: Value) -> None:
    """Add a value under a name; a name that comes again has a list of values."""
    if name not in shown:
        shown[name] = value
        return
    values = shown[name]
    if isinstance(values, list):
        values.append(value)
    else:
        shown[name] = [values, value]


def _guess_value(field: Field, budget: _Budget, depth: int) -> Value:
    if isinstance(field.value, int):
        return field.value
    if field.missing:
        return _guess_cut(field.value, field.missing, budget, depth)
    return _guess_bytes(field.value, budget, depth)


def _guess_cut(data: bytes, missing: int, budget: _Budget, depth: int) -> Value:
    """The same of bytes that are cut off: a message where a field of it is whole."""
    text = _text(data)
    if text is not None and text.isprintable():
        return f"{text}… ({missing} bytes are missing)"
    if depth < MOST_DEPTH:
        spent, left_out = budget.left, budget.left_out
        try:
            if _whole_fields(data):
                return _guess_fields(data, False, budget, depth + 1)
        except ProtocolError:  # then it is no message
            budget.left, budget.left_out = spent, left_out
    return bytes_of(Body(data, len(data) + missing, missing))


def _guess_bytes(data: bytes, budget: _Budget, depth: int) -> Value:
    """Text, a message or bytes.

    White space other than blanks speaks for a message: its first field is often number 1, of
    bytes, and its key is then a line feed.
    """
    text = _text(data)
    if text is not None and text.isprintable():
        return text
    if depth < MOST_DEPTH:
        spent, left_out = budget.left, budget.left_out
        try:
            return _guess_fields(data, True, budget, depth + 1)
        except ProtocolError:  # then it is no message
            budget.left, budget.left_out = spent, left_out
    return data if text is None else text


_SPACES: Final = str.maketrans("", "", "\t\n\r")


def _text(data: bytes) -> str | None:
    """The bytes as text, if they are UTF-8 without control characters but white space."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return None
    return text if text.translate(_SPACES).isprintable() else None


# --- with a schema --------------------------------------------------------------------------


class Schema:
    """The messages and services of descriptor sets."""

    def __init__(self, pool: Any = None) -> None:
        self._pool = pool
        self._methods: dict[tuple[str, str], tuple[Any, Any]] = {}

    def request(self, service: str, method: str, body: Body) -> Lazy[str, Value]:
        """What a method is asked; guessed where no descriptor names the method."""
        return Lazy(lambda: self._decode(self._types(service, method)[0], body))

    def response(self, service: str, method: str, body: Body) -> Lazy[str, Value]:
        """What a method answers; guessed where no descriptor names the method."""
        return Lazy(lambda: self._decode(self._types(service, method)[1], body))

    def _types(self, service: str, method: str) -> tuple[Any, Any]:
        """Classes of the messages of a method; None: not known.  Only known ones are kept."""
        if self._pool is None:
            return None, None
        found = self._methods.get((service, method))
        if found is not None:
            return found
        from google.protobuf.message_factory import GetMessageClass

        try:
            descriptor = self._pool.FindServiceByName(service).methods_by_name[method]
        except KeyError:
            return None, None
        types = GetMessageClass(descriptor.input_type), GetMessageClass(descriptor.output_type)
        self._methods[service, method] = types
        return types

    @staticmethod
    def _decode(type_: Any, body: Body) -> Mapping[str, Value]:
        if type_ is None:
            return guess(body)
        from google.protobuf.message import DecodeError as NotDecoded

        budget = _Budget()
        try:
            message = type_.FromString(body.data if body.is_whole else _whole_fields(body.data))
        except (NotDecoded, ProtocolError):
            return {"(error)": f"no {type_.DESCRIPTOR.full_name}", "(guessed)": guess(body)}
        return _with_counts(_named_fields(message, budget, 0), body, budget)


def _whole_fields(data: bytes) -> bytes:
    """Of a message that is cut short, the fields that are all there."""
    ends = [field.end for field in fields_of(data, False) if not field.missing]
    return data[: ends[-1] if ends else 0]


def _named_fields(message: Any, budget: _Budget, depth: int) -> dict[str, Value]:
    from google.protobuf.unknown_fields import UnknownFieldSet

    shown: dict[str, Value] = {}
    for field, value in message.ListFields():
        if _is_map(field):
            shown[field.name] = _named_map(field, value, budget, depth)
        elif field.is_repeated:
            shown[field.name] = [
                _named_value(field, one, budget, depth) for one in value if budget.spend()
            ]
        elif budget.spend():
            shown[field.name] = _named_value(field, value, budget, depth)
    for unknown in UnknownFieldSet(message):
        if budget.spend():
            value = unknown.data
            known = isinstance(value, int)
            guessed = value if known else _guess_bytes(value, budget, depth)
            _put(shown, str(unknown.field_number), guessed)
    return shown


def _is_map(field: Any) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _named_map(field: Any, value: Mapping[Any, Any], budget: _Budget, depth: int) -> Value:
    of_value = field.message_type.fields_by_name["value"]
    return {
        str(key): _named_value(of_value, value[key], budget, depth)
        for key in sorted(value)  # the library has no order
        if budget.spend()
    }


def _named_value(field: Any, value: Any, budget: _Budget, depth: int) -> Value:
    if field.message_type is not None:
        if depth >= MOST_DEPTH:
            return f"deeper than {MOST_DEPTH}"
        return _named_fields(value, budget, depth + 1)
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return value if known is None else str(known.name)
    return value


@cache
def schema(paths: tuple[str, ...]) -> Schema:
    """What the files of `--proto` hold; DecodeError where one cannot be used.

    The command line calls this before anything is read; parsers then find it ready.
    """
    if not paths:
        return Schema()
    from google.protobuf.descriptor_pool import DescriptorPool

    files: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for path in paths:
        for file in _read_set(path):
            files.setdefault(file.name, file)
            origin.setdefault(file.name, path)
    pool = DescriptorPool()
    added: set[str] = set()
    for name in files:
        _add(pool, name, files, origin[name], added)
    return Schema(pool)


def _read_set(path: str) -> Iterable[Any]:
    """The files that a descriptor set holds."""
    from google.protobuf.descriptor_pb2 import FileDescriptorSet
    from google.protobuf.message import DecodeError as NotDecoded

    try:
        with open(path, "rb") as file:
            found = FileDescriptorSet.FromString(file.read()).file
    except OSError as error:
        raise DecodeError(f"Cannot read {path}: {error.strerror}.") from None
    except NotDecoded:
        found = []
    if not found:
        raise DecodeError(
            f"{path} is no protobuf descriptor set; make one with"
            " protoc --include_imports --descriptor_set_out=FILE NAME.proto."
        )
    return found


def _add(pool: Any, name: str, files: Mapping[str, Any], path: str, added: set[str]) -> None:
    """Add a file of a set to the pool, behind those that it imports."""
    if name in added:
        return
    added.add(name)
    file = files.get(name) or _well_known(name)
    if file is None:
        raise DecodeError(
            f"{path} needs {name}, which it does not hold; make it with protoc --include_imports."
        )
    for dependency in file.dependency:
        _add(pool, dependency, files, path, added)
    try:
        pool.AddSerializedFile(file.SerializeToString())
    except TypeError as error:
        raise DecodeError(f"{path} cannot be used: {_first_line(error)}.") from None


def _well_known(name: str) -> Any:
    """A file that comes with google.protobuf, if it is one."""
    from importlib import import_module

    from google.protobuf.descriptor_pb2 import FileDescriptorProto

    stem = name.removeprefix("google/protobuf/").removesuffix(".proto")
    if not stem.isidentifier() or not name.startswith("google/protobuf/"):
        return None
    try:
        module = import_module(f"google.protobuf.{stem}_pb2")
    except ModuleNotFoundError:
        return None
    file = FileDescriptorProto()
    module.DESCRIPTOR.CopyToProto(file)
    return file


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or ["unknown reason"])[0].rstrip(".")
