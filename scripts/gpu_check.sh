#!/usr/bin/env bash
# Everything that only a machine with an NVIDIA GPU can show, in at most eight minutes:
#     scripts/gpu_check.sh [--out FOLDER] [--python PYTHON]
# Builds the kernels for this GPU, runs their tests with no skip allowed, looks for memory errors and races, then measures.
# A step that has passed is not run again with the same FOLDER (default: build/gpu_check), so that a run that was cut short
# goes on where it was. Results: FOLDER/*.log and FOLDER/kernels_cuda.json. Needs nvcc, cmake, ninja, a C++ compiler, and
# a PYTHON with numpy, cupy, pybind11, pytest and hypothesis.
set -uo pipefail
cd "$(dirname "$0")/.."

out=build/gpu_check
python=python3
while [ $# -gt 0 ]; do
  case $1 in
    --out) out=$2; shift 2 ;;
    --python) python=$2; shift 2 ;;
    *) echo "unknown argument $1; wanted --out FOLDER or --python PYTHON"; exit 2 ;;
  esac
done
mkdir -p "$out"
out=$(cd "$out" && pwd)
export RDN_REQUIRE_CUDA=1 PYTHONPATH=$PWD
tests="tests/test_cuda_boxes.py tests/test_cuda_relation.py tests/test_cuda_window.py"
export out python tests
failed=0

# step NAME SECONDS COMMAND...
step() {
  local name=$1 limit=$2
  shift 2
  if [ -e "$out/$name.passed" ]; then echo "$name: passed before"; return 0; fi
  local start=$SECONDS left=$((480 - SECONDS))
  if [ "$left" -lt 5 ]; then echo "$name: NOT RUN, the eight minutes are over; the next run goes on here"; failed=1; return 1; fi
  if [ "$left" -lt "$limit" ]; then limit=$left; fi
  if timeout "$limit" bash -c '"$@"' step "$@" >"$out/$name.log" 2>&1; then
    touch "$out/$name.passed"
    echo "$name: passed in $((SECONDS - start)) s"
  else
    echo "$name: FAILED ($?) after $((SECONDS - start)) s; the end of $out/$name.log:"
    tail -n 15 "$out/$name.log"
    failed=1
    return 1
  fi
}

build() {
  cmake -S . -B "$out/cmake" -G Ninja -DCMAKE_BUILD_TYPE=Release -DRDN_CUDA=on -DRDN_CUDA_ARCHITECTURES=native \
    "-DCMAKE_LIBRARY_OUTPUT_DIRECTORY=$PWD/rdn_engine" "-DPython_EXECUTABLE=$(command -v "$python")" \
    "-Dpybind11_DIR=$("$python" -m pybind11 --cmakedir)" && cmake --build "$out/cmake" --parallel
}

machine() {
  nvidia-smi --query-gpu=name,driver_version,compute_cap,memory.total --format=csv
  nvcc --version | tail -n 2
  "$python" -c 'import cupy; print("cupy", cupy.__version__)'
}

# Small cases: the sanitizer slows kernels down a hundredfold.
sanitize() {
  compute-sanitizer --tool "$1" --error-exitcode 9 "$python" -m pytest -p no:cacheprovider $tests -k "gpu and not real_size and not (equals_the_cpu and bfloat16)" --maxfail 1
}

export -f build machine sanitize
step machine 60 machine
step build 240 build || exit 1
step tests 180 "$python" -m pytest -p no:cacheprovider $tests tests/test_cuda_benchmark.py -k gpu
if command -v compute-sanitizer >/dev/null; then
  step memcheck 120 sanitize memcheck
  step racecheck 120 sanitize racecheck
else
  echo "memcheck, racecheck: no compute-sanitizer on PATH, NOT RUN"
fi
step kernels 120 "$python" benchmarks/kernels_cuda.py --output "$out/kernels_cuda.json"
cat "$out/kernels.log"
exit $failed
