#!/usr/bin/env bash
# What a machine with a GPU need not make itself, in one folder of at most 60 MiB:
#     scripts/gpu_pack.sh [--out FOLDER] [--work FOLDER] [--python PYTHON] [--architecture NUMBER] [--for VERSION] [--wheels NAMES]
#     scripts/gpu_check.sh --packed FOLDER        # over there
# --out            what is made: an empty or new folder, or one that this script made, which is replaced once all is
#                  done (packed/ of the work folder); a relative one is of the checkout
# --work           what is kept between calls (build/gpu_pack)
# --python         a Python with the extras `export` and `dev` (python3)
# --architecture   of the GPU over there, its compute capability without the point (90, an H200)
# --for            the Python over there (3.12)
# --wheels         packages that it may lack, in quotes (what phase 6 and the command line want; PyAV has 33 MiB, and
#                  no phase needs it)
# FOLDER gets
#   librdn_cuda.so   the kernels for one architecture, without Python; checked by its symbols and resources
#   model/           ResNet-101 in fp16 with synthetic weights: what is not drawn from a seed (benchmarks/frame/seeded.py)
#   expected.npz     what a CPU detects with it, so that no minute over there goes into that
#   wheels/          those packages
#   sources          the state of csrc/cuda and csrc/include that the library is of; gpu_check.sh takes no library of another
# Needs nvcc, cmake, ninja, a C++ compiler, and a network for the wheels. Takes six minutes on two cores, the first time.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/gpu_options.sh

work=build/gpu_pack
out=
python=python3
architecture=90
for=3.12
most=$((60 << 20))
wheels="faster-coco-eval rich markdown-it-py mdurl pygments typer click shellingham annotated-doc"
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) usage scripts/gpu_pack.sh; exit ;;
    --out) value FOLDER "$@"; out=$REPLY; shift 2 ;;
    --work) value FOLDER "$@"; work=$REPLY; shift 2 ;;
    --python) value PYTHON "$@"; python=$REPLY; shift 2 ;;
    --architecture) value NUMBER "$@"; architecture=$REPLY; shift 2 ;;
    --for) value VERSION "$@"; for=$REPLY; shift 2 ;;
    --wheels) value NAMES "$@"; wheels=$REPLY; shift 2 ;;
    *) refuse "unknown argument $1; wanted --out, --work, --python, --architecture, --for or --wheels" ;;
  esac
done
wanted --architecture "$architecture" '[0-9]+' 'a compute capability without its point, such as 90'
wanted --for "$for" '3\.[0-9]+' 'a version of Python, such as 3.12'
program --python "$python"
for tool in cmake ninja "${CXX:-c++}" "${CUDACXX:-nvcc}"; do
  command -v "$tool" >/dev/null || refuse "$tool is not on PATH; wanted cmake, ninja, a C++ compiler and nvcc"
done
lacking=$("$python" -c 'import importlib.util, sys
print(*(name for name in sys.argv[1:] if importlib.util.find_spec(name) is None))' \
  pip pybind11 numpy torch torchvision onnx onnxscript onnxruntime safetensors yaml PIL) || exit
[ -z "$lacking" ] || refuse "$python lacks $lacking; wanted pip and the extras 'export' and 'dev'"

export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
out=$(realpath -m "${out:-$work/packed}")
if [ -e "$out" ] && [ ! -d "$out" ]; then refuse "--out is $out, a file; wanted a folder"; fi
if [ -n "$(ls -A "$out" 2>/dev/null)" ] && ! grep -qxE '[0-9a-f]{64}' "$out/sources" 2>/dev/null; then
  refuse "--out is $out, which holds something else than a pack; wanted a new or an empty folder, or an earlier pack"
fi
mkdir -p "$work" "$(dirname "$out")"
# Beside what it replaces, which stays where this run fails.
pack=$(mktemp -d "$out.XXXXXX")
trap 'rm -rf "$pack"' EXIT
chmod 755 "$pack"
mkdir "$pack/wheels"

echo "== kernels for sm_$architecture"
cmake -S . -B "$work/cmake" -G Ninja -DCMAKE_BUILD_TYPE=Release -DRDN_CUDA=on "-DRDN_CUDA_ARCHITECTURES=$architecture-real" \
  "-DPython_EXECUTABLE=$(command -v "$python")" "-Dpybind11_DIR=$("$python" -m pybind11 --cmakedir)" >"$work/cmake.log"
cmake --build "$work/cmake" --target rdn_cuda
cp "$work/cmake/librdn_cuda.so" "$pack"
"$python" scripts/check_cuda_library.py "$pack/librdn_cuda.so" --architecture "$architecture"
scripts/gpu_sources.sh csrc/cuda csrc/include >"$pack/sources"

echo "== ResNet-101, fp16"
model=$work/r101-$(scripts/gpu_sources.sh export training benchmarks/frame/models.py benchmarks/frame/seeded.py | cut -c 1-12)
"$python" benchmarks/frame/models.py "$model" --precision fp16
"$python" benchmarks/frame/packing.py "$model" "$pack/model" --precision fp16
"$python" scripts/gpu_smoke.py --engines "$model/fp16" --write-expected "$pack/expected.npz"

echo "== wheels for Python $for"
# shellcheck disable=SC2086
"$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --python-version "$for" \
  --implementation cp --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
  --dest "$pack/wheels" $wheels

bytes=$(find "$pack" -type f -printf '%s\n' | awk '{ sum += $1 } END { print sum }')
tree=$(git ls-files -z | du -cb --files0-from=- | awk 'END { print $1 }')
(cd "$pack" && du -b -- *) | sort -n | awk '{ printf "%8.1f MiB  %s\n", $1 / 1048576, $2 }'
if [ "$bytes" -gt "$most" ]; then
  echo "this is more than the 60 MiB that travel, and $out is as it was; name fewer packages (--wheels)" >&2
  exit 1
fi
if [ -e "$out" ]; then mv "$out" "$pack.before"; fi
mv "$pack" "$out"
rm -rf "$pack.before"
awk -v b="$bytes" -v t="$tree" -v o="$out" \
  'BEGIN { printf "%s: %.1f MiB; with the %.1f MiB of the checkout %.1f MiB\n", o, b/1048576, t/1048576, (b+t)/1048576 }'
