#!/usr/bin/env bash
# Everything that only a machine with an NVIDIA GPU can show, in at most eight minutes:
#     scripts/gpu_check.sh [--out FOLDER] [--python PYTHON] [--seconds 480] [--work FOLDER]
# Builds the kernels for this GPU, runs every test with no skip allowed (RDN_REQUIRE_CUDA=1), looks for memory errors and
# races, then measures. A step that has passed is not run again on the same sources: its mark stands in the work folder
# (default: build/gpu_check), so that a run that was cut short goes on where it was; on 16 cores two runs do all. Of each
# run the results so far are copied to --out (default: results/ of the work folder): *.json, and all logs in gpu_check.log.
# Needs nvcc, cmake, ninja, a C++ compiler, and a PYTHON with cupy, pybind11, pytest, hypothesis and what the extras
# `train` and `export` name; it reads nothing from a network. With pytest-xdist the tests use every core.
set -uo pipefail
cd "$(dirname "$0")/.." || exit

results=
state=build/gpu_check
python=python3
seconds=480
while [ $# -gt 0 ]; do
  case $1 in
    --out) results=$2; shift 2 ;;
    --work) state=$2; shift 2 ;;
    --python) python=$2; shift 2 ;;
    --seconds) seconds=$2; shift 2 ;;
    *) echo "unknown argument $1; wanted --out FOLDER, --work FOLDER, --python PYTHON or --seconds NUMBER"; exit 2 ;;
  esac
done
results=${results:-$state/results}
# What a step's mark is worth something for: not what a build or a run leaves behind.
sources() {
  find benchmarks csrc export models rdn_engine scripts tests training CMakeLists.txt -type f \
    ! -name '*.so' ! -name '*.pyc' ! -path 'benchmarks/results/*' -print0 | sort -z | xargs -0 sha256sum
}
out=$state/$(sources | sha256sum | cut -c 1-12)
mkdir -p "$out" "$results" || exit 2
out=$(cd "$out" && pwd)
# After each step, since a run may be killed, and where there was nothing left to do.
collect() {
  cp "$out"/*.json "$results" 2>/dev/null
  tail -n +1 "$out"/*.log >"$results/gpu_check.log" 2>/dev/null
}
trap collect EXIT
export RDN_REQUIRE_CUDA=1 PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
export out python
failed=0

# step NAME SECONDS COMMAND...
step() {
  local name=$1 limit=$2
  shift 2
  if [ -e "$out/$name.passed" ]; then echo "$name: passed before"; return 0; fi
  local start=$SECONDS left=$((seconds - SECONDS))
  if [ "$left" -lt 5 ]; then
    echo "$name: NOT RUN, the $seconds seconds are over; the next run goes on here"
    failed=1
    return 1
  fi
  if [ "$left" -lt "$limit" ]; then limit=$left; fi
  if timeout "$limit" bash -c '"$@"' step "$@" >"$out/$name.log" 2>&1; then
    touch "$out/$name.passed"
    echo "$name: passed in $((SECONDS - start)) s"
  else
    echo "$name: FAILED ($?) after $((SECONDS - start)) s; the end of $out/$name.log:"
    tail -n 15 "$out/$name.log"
    failed=1
    collect
    return 1
  fi
  collect
}

has() { "$python" -c "import $1" >/dev/null 2>&1; }

# leave_out WHY FILE_OR_TEST...: of the tests; each is named, nothing is left out in silence.
left_out=()
leave_out() {
  local why=$1 one
  shift
  for one in "$@"; do
    echo "left out, wants $why: $one"
    case $one in *::*) left_out+=("--deselect=$one") ;; *) left_out+=("--ignore=$one") ;; esac
  done
}

# The functions below are called by name, through step.
# shellcheck disable=SC2329
machine() {
  nvidia-smi --query-gpu=name,driver_version,compute_cap,memory.total --format=csv || return 1
  nvcc --version | tail -n 2
  "$python" - <<'CHECK'
import importlib, sys
names = ("numpy", "cupy", "torch", "torchvision", "onnx", "onnxscript", "onnxruntime", "av", "safetensors", "yaml",
         "faster_coco_eval", "PIL", "rich", "typer", "pybind11", "pytest", "hypothesis")
missing = []
for name in names:
    try:
        found = importlib.import_module(name)
        print(name, getattr(found, "__version__", ""))
    except ImportError as error:
        missing.append(f"{name} ({error})")
if missing:
    sys.exit(f"missing: {', '.join(missing)}")
CHECK
}

# shellcheck disable=SC2329
build() {
  cmake -S . -B "$out/cmake" -G Ninja -DCMAKE_BUILD_TYPE=Release -DRDN_CUDA=on -DRDN_CUDA_ARCHITECTURES=native \
    "-DCMAKE_LIBRARY_OUTPUT_DIRECTORY=$PWD/rdn_engine/kernels" "-DPython_EXECUTABLE=$(command -v "$python")" \
    "-Dpybind11_DIR=$("$python" -m pybind11 --cmakedir)" && cmake --build "$out/cmake" --parallel
}

# The kernels and the runtime on the GPU, before the rest of the suite.
# shellcheck disable=SC2329
device_tests() {
  "$python" -m pytest -p no:cacheprovider tests/kernels/cuda/test_{boxes,relation,ring,window}.py \
    tests/device/test_{batch,frames,linking,programs,stream}.py tests/backends/test_device_graphs.py \
    tests/benchmarks/test_kernels_cuda.py -k gpu
}

# shellcheck disable=SC2329
suite() {
  local spread=()
  if "$python" -c "import xdist" >/dev/null 2>&1; then
    # Once, before several processes would.
    "$python" -c 'import sys; sys.path.insert(0, "tests"); import cuda_machines; cuda_machines.emulated_module()' || return 1
    spread=(-n auto)
  fi
  "$python" -m pytest -p no:cacheprovider "${spread[@]}" "$@" tests
}

# Small cases: the sanitizer slows kernels down a hundredfold.
# shellcheck disable=SC2329
sanitize() {
  compute-sanitizer --tool "$1" --error-exitcode 9 "$python" -m pytest -p no:cacheprovider \
    tests/kernels/cuda/test_{boxes,relation,ring,window}.py \
    -k "gpu and not real_size and not (equals_the_cpu and bfloat16)" --maxfail 1
}

export -f build machine device_tests suite sanitize
step machine 60 machine || exit 1
step build 240 build || exit 1
step device_tests 180 device_tests

leave_out "the network" tests/backends/tensorrt/test_backend.py::test_types_are_those_of_the_real_bindings \
  tests/test_install.py::test_the_runtime_needs_no_torch tests/test_install.py::test_the_console_script_verifies_a_bundle \
  tests/test_install.py::test_a_cuda_build_that_cannot_be_had_fails_loudly
has supervision || leave_out "supervision" tests/test_results.py
has tensorrt_rtx_bindings || has tensorrt_rtx || leave_out "TensorRT for RTX" \
  tests/backends/tensorrt/test_backend.py::test_every_graph_compiles_in_every_floating_precision \
  tests/backends/tensorrt/test_backend.py::test_quantised_graphs_compile tests/backends/tensorrt/test_backend.py::test_graphs_of_codes_compile \
  tests/backends/tensorrt/test_backend.py::test_a_graph_that_does_not_parse_is_named tests/backends/tensorrt/test_backend.py::test_ctrl_c_ends_a_build \
  tests/backends/tensorrt/test_backend.py::test_the_build_command_builds_once_for_each_set_of_limits \
  tests/backends/tensorrt/test_backend.py::test_what_cannot_be_built_is_one_message
[ -n "${TENSORRT_ROOT:-}" ] || leave_out "TensorRT's headers (TENSORRT_ROOT)" \
  tests/backends/tensorrt/test_plugin_graph.py::test_it_compiles_against_the_real_header
grep -q avx512_bf16 /proc/cpuinfo || leave_out "a processor with AVX512-BF16" \
  tests/host/test_relation.py::test_bfloat16_computes_nearly_the_definition
step suite 300 suite "${left_out[@]}"

if command -v compute-sanitizer >/dev/null; then
  step memcheck 120 sanitize memcheck
  step racecheck 120 sanitize racecheck
else
  echo "memcheck, racecheck: no compute-sanitizer on PATH, NOT RUN"
fi

# Speed. Synthetic weights of the paper's size, through torch, which needs no TensorRT.
r101=$out/r101/fp16
device=(--backend torch --device cuda)
step kernels 120 "$python" benchmarks/kernel/kernels_cuda.py --output "$out/kernels_cuda.json"
if step model 420 "$python" benchmarks/frame/models.py "$out/r101" --precision fp16; then
  step steady 120 "$python" benchmarks/frame/steady_frame.py --engines "$r101" "${device[@]}" --output "$out/steady_frame_cuda.json"
  step latency 300 "$python" benchmarks/frame/latency.py --engines "$r101" "${device[@]}" --quick --rounds 30 \
    --sweeps baseline T K r --output "$out/latency_cuda.json"
  step streams 120 "$python" benchmarks/frame/latency.py --engines "$r101" "${device[@]}" --rounds 30 \
    --sweeps streams --output "$out/latency_streams_cuda.json"
fi
step training 180 "$python" benchmarks/quality/training_throughput.py --device cuda --workers 4 8 \
  --output "$out/training_throughput.json"
cat "$out"/{kernels,steady,training}.log 2>/dev/null
exit $failed
