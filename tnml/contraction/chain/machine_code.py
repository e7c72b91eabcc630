"""What numba lacks for the native engine: calls to machine code and memory at plain addresses."""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic


@intrinsic
def call(typing_context, address, arguments):
    """Calls the machine code at an address with 64-bit integers."""
    kinds = list(arguments)

    def generate(context, builder, signature, values):
        given = cgutils.unpack_tuple(builder, values[1], len(kinds))
        integers = [context.cast(builder, g, t, types.int64) for g, t in zip(given, kinds, strict=True)]
        kind = ir.FunctionType(ir.VoidType(), [ir.IntType(64)] * len(kinds))
        builder.call(builder.inttoptr(values[0], kind.as_pointer()), integers)
        return context.get_dummy_value()

    return types.void(types.int64, arguments), generate


@intrinsic
def call_for_int(typing_context, address):
    """Calls the machine code at an address, which takes no arguments and returns a C int."""

    def generate(context, builder, signature, values):
        kind = ir.FunctionType(ir.IntType(32), [])
        return builder.sext(builder.call(builder.inttoptr(values[0], kind.as_pointer()), []), ir.IntType(64))

    return types.int64(types.int64), generate


@intrinsic
def load(typing_context, address):
    """The float at an address."""

    def generate(context, builder, signature, values):
        return builder.load(builder.inttoptr(values[0], ir.FloatType().as_pointer()), typ=ir.FloatType())

    return types.float32(types.int64), generate


@intrinsic
def store(typing_context, address, value):
    """Writes a float to an address."""

    def generate(context, builder, signature, values):
        builder.store(values[1], builder.inttoptr(values[0], ir.FloatType().as_pointer()))
        return context.get_dummy_value()

    return types.void(types.int64, types.float32), generate


@intrinsic
def integer(typing_context, address):
    """The 64-bit integer at an address."""

    def generate(context, builder, signature, values):
        return builder.load(builder.inttoptr(values[0], ir.IntType(64).as_pointer()), typ=ir.IntType(64))

    return types.int64(types.int64), generate


def _pointer(kind, element):
    """A function that makes a pointer to numbers of this kind of an address."""

    @intrinsic
    def pointer(typing_context, address):
        def generate(context, builder, signature, values):
            return builder.inttoptr(values[0], element.as_pointer())

        return types.CPointer(kind)(types.int64), generate

    return pointer


floats = _pointer(types.float32, ir.FloatType())
doubles = _pointer(types.float64, ir.DoubleType())
integers = _pointer(types.int64, ir.IntType(64))
small_integers = _pointer(types.int32, ir.IntType(32))


@intrinsic
def square_root(typing_context, x):
    """The square root by the processor's own instruction, where numba's may call the C library."""

    def generate(context, builder, signature, values):
        function = builder.module.declare_intrinsic("llvm.sqrt", [values[0].type])
        return builder.call(function, values)

    return x(x), generate
