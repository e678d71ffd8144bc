"""Builds the emulated GPU: libraries by the names of NVIDIA's, and every kernel as a library of the host's code.

    python3 build.py --toolkit CUDA_HOME --kernels SOURCES PTX [--kernels SOURCES PTX]... --out DIR

SOURCES is a folder of .cu files and PTX the folder with what nvcc made of them: the kernels are those that the PTX has as entries,
so that each is there by the name that a program asks for. DIR is what goes into LD_LIBRARY_PATH. Started by
`cargo xtask test-cuda --emulated`, which knows the folders. What has changed is built again, by the hashes of commands and sources.
"""

import argparse
import hashlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
COMPILER = shlex.split(os.environ.get("CXX") or "g++")

# By its soname: the sources of a library.
LIBRARIES = {
    "libcuda.so.1": sorted(HERE.glob("driver/*.cpp")),
    "libcublas.so.13": [HERE / "libraries/cublas.cpp"],
    "libcudnn.so.9": [HERE / "libraries/cudnn.cpp", HERE / "libraries/convolution.cpp"],
    "libcurand.so.10": [HERE / "libraries/curand.cpp"],
    "libcudart.so.13": [HERE / "libraries/cudart.cpp"],
}

COMMON = ["-std=c++17", "-g1", "-fPIC", "-fvisibility=hidden"]
# Conversions of half precision and fused multiply-adds in hardware.
NUMERIC = ["-mavx2", "-mfma", "-mf16c"]
WARNINGS = ["-Wall", "-Wextra"]
# A GPU's compiler fuses a product and an addition, wraps integers around, and reads memory as any type. Each library of kernels has
# its variables to itself, by whatever name. What candle's sources warn of is not ours.
KERNELS = ["-shared", "-O2", *NUMERIC, "-ffp-contract=fast", "-fwrapv", "-fno-strict-aliasing", "-fpermissive", "-w"]
KERNELS += ["-fno-gnu-unique", "-Wl,-Bsymbolic"]


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--toolkit", type=Path, required=True)
    arguments.add_argument("--kernels", type=Path, nargs=2, action="append", required=True, metavar=("SOURCES", "PTX"))
    arguments.add_argument("--out", type=Path, required=True)
    chosen = arguments.parse_args()
    chosen.out = chosen.out.resolve()
    build_libraries(chosen.toolkit, chosen.out)
    kernels = chosen.out / "kernels"
    built = set()
    for sources, ptx in chosen.kernels:
        built |= build_kernels(chosen.toolkit, sources, ptx, kernels)
    build_check(chosen.toolkit, chosen.out)
    # The driver opens all that lie there.
    for old in set(kernels.glob("*.so")) - built:
        old.unlink()


def build_libraries(toolkit, out):
    objects = out / "objects"
    objects.mkdir(parents=True, exist_ok=True)
    headers = sorted([*HERE.glob("driver/*.h"), *HERE.glob("libraries/*.h")])
    for soname, sources in LIBRARIES.items():
        rest = objects / f"{soname}.cpp"
        write(rest, not_emulated(functions(toolkit, soname)))
        compiled = []
        for source in [*sources, rest]:
            command = [*COMPILER, *COMMON, *WARNINGS, *NUMERIC, "-O3", f"-I{HERE / 'driver'}", f"-isystem{toolkit / 'include'}"]
            compiled.append(objects / f"{source.stem}.o")
            build_if_changed([*command, "-c", str(source)], [source, *headers], compiled[-1])
        command = [*COMPILER, "-shared", f"-Wl,-soname,{soname}", *map(str, compiled)]
        if soname == "libcuda.so.1":
            command.append("-ldl")
        else:
            command += [f"-L{out}", "-l:libcuda.so.1"]
        if soname.startswith("libcudart"):
            # The one library whose symbols have versions.
            command.append(f"-Wl,--version-script={HERE / 'libraries/cudart.map'}")
        build_if_changed(command, compiled, out / soname)


def build_check(toolkit, out):
    """A program that makes faults on purpose, to see that they are found."""
    source = HERE / "tests/faults.cpp"
    command = [*COMPILER, "-std=c++17", *WARNINGS, f"-isystem{toolkit / 'include'}", str(source)]
    command += [str(out / soname) for soname in ("libcuda.so.1", "libcublas.so.13")]
    build_if_changed(command, [source], out / "faults")


def functions(toolkit, soname):
    """The functions of NVIDIA's library, or of the stub that the toolkit has for it."""
    name = soname.partition(".so")[0] + ".so"
    for library in (toolkit / "lib" / soname, toolkit / "lib" / name, toolkit / "lib/stubs" / name):
        if library.exists():
            listed = subprocess.run(["nm", "-D", "--defined-only", library], check=True, capture_output=True, text=True).stdout
            names = {line.split()[2].split("@")[0] for line in listed.splitlines() if line.split()[1] == "T"}
            return sorted(name for name in names if re.match("cu|__cuda", name))
    sys.exit(f"{toolkit} has no {soname}: make a toolkit with cargo xtask cuda-toolkit DIR, and set CUDA_HOME to it")


def not_emulated(names):
    """A function for each name that ends the program; weak, so that those that are emulated come before it."""
    define = 'EXPORT __attribute__((weak)) void {0}() {{ emulated_fault("{0} is not emulated: write it in xtask/emulated-gpu"); }}\n'
    return '#include "device.h"\n' + "".join(map(define.format, names))


def build_kernels(toolkit, sources, ptx, out):
    """Compiles each source that there is PTX of; gives back the libraries."""
    (out / "generated").mkdir(parents=True, exist_ok=True)
    built = set()
    headers = sorted([*HERE.glob("kernels/**/*"), HERE / "driver/kernel_table.h", *sources.glob("*.cuh")])
    for compiled in sorted(ptx.glob("*.ptx")):
        source = sources / f"{compiled.stem}.cu"
        entries = re.findall(r"\.entry\s+([\w$]+)", compiled.read_text())
        # Kernels of quantised weights use instructions that only a GPU has, and nothing of ours asks for them.
        if not source.exists() or not entries or compiled.stem == "quantized":
            continue
        name = f"{sources.parent.name}-{compiled.stem}"
        generated = out / "generated" / f"{name}.cpp"
        write(generated, host_code(source, entries))
        command = [*COMPILER, *COMMON, *KERNELS, f"-I{HERE / 'kernels'}", f"-I{HERE / 'driver'}"]
        command += [f"-isystem{toolkit / 'include'}", f"-I{sources}", str(generated)]
        build_if_changed(command, [generated, *(header for header in headers if header.is_file())], out / f"{name}.so")
        built.add(out / f"{name}.so")
    if not built:
        sys.exit(f"{ptx} has no PTX of {sources}: build the tests with --features cuda first")
    return built


def host_code(source, entries):
    """A .cu file as C++ of the host, with the table of its kernels behind it."""
    text = source.read_text()
    # An array of the launch's shared memory has no size of its own.
    text = re.sub(r"extern\s+__shared__\s+(\w+)\s+(\w+)\[\];", r"\1 *\2 = reinterpret_cast<\1 *>(emulated_shared);", text)
    # A large argument lies in constant memory, which here is the launch's copy.
    text = re.sub(r"const\s+__grid_constant__\s+(\w+)\s+(\w+)", r"const \1 &\2", text)
    table = "".join(f'    EmulatedEntry<&{entry}>::entry("{entry}"),\n' for entry in entries)
    return (
        f'#include "cuda_on_host.h"\n#line 1 "{source}"\n{text}\n'
        f"static constexpr EmulatedKernel all_kernels[] = {{\n{table}}};\n"
        'extern "C" __attribute__((visibility("default"))) EmulatedKernels emulated_kernels() {\n'
        f"    return {{all_kernels, {len(entries)}, &__bss_start, &_end}};\n}}\n"
    )


def build_if_changed(command, inputs, product):
    state = hashlib.sha256(repr(command).encode())
    for path in inputs:
        state.update(path.read_bytes())
    stamp = product.with_name(product.name + ".sha256")
    if product.exists() and stamp.exists() and stamp.read_text() == state.hexdigest():
        return
    print(f"emulated GPU: {product.name}", file=sys.stderr, flush=True)
    # Put into its place whole: a program may have the old one open.
    partial = product.with_name(product.name + ".partial")
    if subprocess.run([*command, "-o", str(partial)]).returncode:
        sys.exit(f"{COMPILER[0]} could not build {product.name}; what it says is above")
    partial.rename(product)
    stamp.write_text(state.hexdigest())


def write(path, text):
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


if __name__ == "__main__":
    main()
