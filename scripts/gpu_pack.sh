#!/usr/bin/env bash
# What a machine with a GPU need not make itself, in one folder of at most 60 MiB:
#     scripts/gpu_pack.sh [--out FOLDER] [--work FOLDER] [--python PYTHON] [--architecture 90] [--for 3.12] [--wheels "NAME..."]
#     scripts/gpu_check.sh --packed FOLDER        # over there
# FOLDER (default: packed/ of the work folder, build/gpu_pack) gets
#   librdn_cuda.so   the kernels for one architecture, without Python; checked by its symbols and resources
#   model/           ResNet-101 in fp16 with synthetic weights: what is not drawn from a seed (benchmarks/frame/seeded.py)
#   expected.npz     what a CPU detects with it, so that no minute over there goes into that
#   wheels/          what that machine lacks, for its Python. PyAV, 33 MiB, only where --wheels names it: no phase needs it
#   sources          the state of csrc/cuda and csrc/include that the library is of; gpu_check.sh takes no library of another
# Wants nvcc, cmake, ninja, a C++ compiler, a network for the wheels, and a PYTHON with the extras `export` and `dev`.
set -euo pipefail
cd "$(dirname "$0")/.."

work=build/gpu_pack
out=
python=python3
architecture=90
for=3.12
most=$((60 << 20))
wheels="faster-coco-eval rich markdown-it-py mdurl pygments typer click shellingham annotated-doc"
while [ $# -gt 0 ]; do
  case $1 in
    --out) out=$2; shift 2 ;;
    --work) work=$2; shift 2 ;;
    --python) python=$2; shift 2 ;;
    --architecture) architecture=$2; shift 2 ;;
    --for) for=$2; shift 2 ;;
    --wheels) wheels=$2; shift 2 ;;
    *) echo "unknown argument $1; wanted --out, --work, --python, --architecture, --for or --wheels"; exit 2 ;;
  esac
done
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
out=${out:-$work/packed}
rm -rf "$out"
mkdir -p "$out/wheels" "$work"

echo "== kernels for sm_$architecture"
cmake -S . -B "$work/cmake" -G Ninja -DCMAKE_BUILD_TYPE=Release -DRDN_CUDA=on "-DRDN_CUDA_ARCHITECTURES=$architecture-real" \
  "-DPython_EXECUTABLE=$(command -v "$python")" "-Dpybind11_DIR=$("$python" -m pybind11 --cmakedir)" >"$work/cmake.log"
cmake --build "$work/cmake" --target rdn_cuda
cp "$work/cmake/librdn_cuda.so" "$out"
"$python" scripts/check_cuda_library.py "$out/librdn_cuda.so" --architecture "$architecture"
scripts/gpu_sources.sh csrc/cuda csrc/include >"$out/sources"

echo "== ResNet-101, fp16"
model=$work/r101-$(scripts/gpu_sources.sh export training benchmarks/frame/models.py benchmarks/frame/seeded.py | cut -c 1-12)
"$python" benchmarks/frame/models.py "$model" --precision fp16
"$python" benchmarks/frame/packing.py "$model" "$out/model" --precision fp16
"$python" scripts/gpu_smoke.py --engines "$model/fp16" --write-expected "$out/expected.npz"

echo "== wheels for Python $for"
# shellcheck disable=SC2086
"$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --python-version "$for" \
  --implementation cp --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
  --dest "$out/wheels" $wheels

bytes=$(find "$out" -type f -printf '%s\n' | awk '{ sum += $1 } END { print sum }')
tree=$(git ls-files -z | du -cb --files0-from=- | awk 'END { print $1 }')
du -b "$out"/* | sort -n | awk '{ printf "%8.1f MiB  %s\n", $1 / 1048576, $2 }'
awk -v b="$bytes" -v t="$tree" -v o="$out" \
  'BEGIN { printf "%s: %.1f MiB; with the %.1f MiB of the checkout %.1f MiB\n", o, b/1048576, t/1048576, (b+t)/1048576 }'
if [ "$bytes" -gt "$most" ]; then
  echo "$out is larger than 60 MiB, which is what travels; leave wheels out (--wheels)"
  rm -rf "$out"
  exit 1
fi
