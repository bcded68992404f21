"""Compiles CUDA sources with NVRTC: check_kernels.py FOLDER SOURCE... For each source and kind of card it prints a
line of JSON: source, arch, rc, log. The folder's .cuh files are the headers."""

import ctypes
import glob
import json
import os
import sys

ARCHS = ["sm_80", "sm_90", "sm_120"]
OPTIONS = ["--std=c++17", "-fmad=false", "--ptxas-options=-v"]


def library():
    # nvidia/cuda_nvrtc/lib for 12, nvidia/cu13/lib for 13.
    for folder in sys.path:
        found = glob.glob(os.path.join(folder, "nvidia", "*", "lib", "libnvrtc.so.[0-9]*"))
        if found:
            # Loaded before, the library's other half is found by its name.
            for other in glob.glob(os.path.join(os.path.dirname(found[0]), "libnvrtc-builtins.so.*")):
                ctypes.CDLL(other)
            return ctypes.CDLL(found[0])
    sys.exit("no libnvrtc.so in this environment")


def compile(nvrtc, name, source, headers, arch):
    program = ctypes.c_void_p()
    texts = (ctypes.c_char_p * len(headers))(*headers.values())
    names = (ctypes.c_char_p * len(headers))(*headers.keys())
    made = nvrtc.nvrtcCreateProgram(ctypes.byref(program), source, name.encode(), len(headers), texts, names)
    if made != 0:
        sys.exit(f"nvrtcCreateProgram: error {made}")
    options = [option.encode() for option in OPTIONS + ["--gpu-architecture=" + arch]]
    rc = nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
    size = ctypes.c_size_t()
    nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetProgramLog(program, log)
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    return rc, log.value.decode()


def main():
    folder, sources = sys.argv[1], sys.argv[2:]
    read = lambda path: open(path, "rb").read()
    headers = {os.path.basename(path).encode(): read(path) for path in glob.glob(os.path.join(folder, "*.cuh"))}
    nvrtc = library()
    for source in sources:
        for arch in ARCHS:
            rc, log = compile(nvrtc, os.path.basename(source), read(source), headers, arch)
            print(json.dumps({"source": os.path.basename(source), "arch": arch, "rc": rc, "log": log}), flush=True)


main()
