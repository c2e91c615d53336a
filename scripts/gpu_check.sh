#!/usr/bin/env bash
# What only a machine with an NVIDIA GPU can show, in the order of what it tells, in less than nine minutes:
#     scripts/gpu_check.sh [--out FOLDER] [--packed FOLDER] [--after FOLDER] [--python PYTHON] [--seconds SECONDS] [--work FOLDER]
#     scripts/gpu_check.sh --device cpu     # the same Python on the emulator, small, to see that it runs
# --out       gets phase0.json to phase6.json and gpu_check.log after each step, so a run that is cut leaves what it
#             had; at most eight files (results/ of the work folder)
# --packed    what scripts/gpu_pack.sh made; without it kernels and model are made here, and the run takes two calls
# --after     the --out of an earlier run, maybe on another machine: what has passed or failed there on the same sources is
#             taken over; it may be the same folder as --out
# --python    what runs all of it (python3)
# --seconds   after which no step begins or goes on (520: with what ends a run, less than nine minutes)
# --work      marks of what has run, kept between calls (build/gpu_check); a relative folder is of the checkout
# --device    cuda or cpu (cuda)
# Phases: 0 is this machine ready (programs, wheels, kernels, model), 1 does it compute (90 s), 2 a steady frame (120 s),
# 3 streams and kernels (120 s), 4 memory errors and races, 5 every other test, no skip allowed, 6 training. A step that
# fails stops no other but those that need it. A step that has run is not run again on the same sources before all
# others have.
# Needs cmake, ninja, a C++ compiler, and a PYTHON with numpy, cupy and pybind11 for anything, onnxruntime for what is
# compared with the CPU, torch and onnx for the network, torchvision, safetensors, pyyaml and pillow for baseline.py;
# compute-sanitizer for phase 4; nvcc, pytest and hypothesis for phase 5; nvcc where nothing is packed. What is missing is
# said, and stops what needs it alone. Reads nothing from a network.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
source scripts/gpu_options.sh

results=
state=build/gpu_check
packed=
before=
python=python3
seconds=520
device=cuda
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) usage scripts/gpu_check.sh; exit ;;
    --out) value FOLDER "$@"; results=$REPLY; shift 2 ;;
    --work) value FOLDER "$@"; state=$REPLY; shift 2 ;;
    --packed) value FOLDER "$@"; packed=$REPLY; shift 2 ;;
    --after) value FOLDER "$@"; before=$REPLY; shift 2 ;;
    --python) value PYTHON "$@"; python=$REPLY; shift 2 ;;
    --seconds) value SECONDS "$@"; seconds=$REPLY; shift 2 ;;
    --device) value 'cuda|cpu' "$@"; device=$REPLY; shift 2 ;;
    *) refuse "unknown argument $1; wanted --out, --work, --packed, --after, --python, --seconds or --device" ;;
  esac
done
wanted --seconds "$seconds" '0|[1-9][0-9]*' 'a whole number'
wanted --device "$device" 'cuda|cpu' 'cuda or cpu'
program --python "$python"
if [ -n "$packed" ] && [ ! -e "$packed/librdn_cuda.so" ]; then
  refuse "--packed is $packed, which has no librdn_cuda.so; wanted the folder that scripts/gpu_pack.sh made"
fi
if [ -n "$before" ] && ! compgen -G "$before/phase[0-6].json" >/dev/null; then
  refuse "--after is $before, which has no phase0.json to phase6.json; wanted --out of an earlier run"
fi
results=${results:-$state/results}
now() { date +%s; }
began=$(now)
digest=$(scripts/gpu_sources.sh benchmarks csrc export models rdn_engine scripts tests training CMakeLists.txt) || exit 2
out=$state/$device-${digest:0:12}
mkdir -p "$out" "$results" || exit 2
out=$(cd "$out" && pwd)
packed=${packed:+$(cd "$packed" && pwd)}
quick=()
if [ "$device" = cpu ]; then quick=(--device cpu --quick); else export RDN_REQUIRE_CUDA=1; fi
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}:$out/site
export out packed python device PYTHONUNBUFFERED=1
failed=0

# The plan, in order: phase, step, the most seconds it may take, what has to have passed before, what is run.
plan=() titles=("ready" "does it compute" "a steady frame" "streams and kernels" "memory errors and races" "every other test"
  "training")
phase_limit=(300 90 120 120 200 480 180)
declare -A limit need command
# add PHASE NAME SECONDS NEEDS COMMAND...; NEEDS: names with commas, or -
add() {
  plan+=("$1 $2")
  limit[$2]=$3 need[$2]=$4
  command[$2]=$(printf '%q ' "${@:5}")
}

# After each step, since a run may be killed.
collect() {
  "$python" scripts/gpu_results.py collect "$out" "$results" || true
  tail -n +1 "$out"/*.log >"$results/gpu_check.log" 2>/dev/null
}
trap collect EXIT

# step PHASE NAME: within its own limit, its phase's and the whole run's.
declare -A spent=()
step() {
  local phase=$1 name=$2 one
  for one in ${need[$name]//,/ }; do
    if [ "$one" != - ] && ! passed "$one"; then
      echo "$name: NOT RUN, it needs $one"
      failed=1
      return
    fi
  done
  local start left code
  start=$(now)
  left=$((seconds - (start - began)))
  if [ "$left" -lt 5 ]; then
    echo "$name: NOT RUN, the $seconds seconds are over; the next run goes on here"
    failed=1
    return
  fi
  local of_phase=$((phase_limit[phase] - ${spent[$phase]:-0})) most=${limit[$name]}
  if [ "$of_phase" -lt 5 ]; then
    echo "$name: NOT RUN, the ${phase_limit[$phase]} seconds of phase $phase are over; the next run goes on here"
    failed=1
    return
  fi
  for one in "$left" "$of_phase"; do if [ "$one" -lt "$most" ]; then most=$one; fi; done
  timeout --kill-after=5 "$most" bash -c "${command[$name]}" >"$out/$name.log" 2>&1
  code=$?
  local took=$(($(now) - start))
  spent[$phase]=$((${spent[$phase]:-0} + took))
  if [ "$code" = 0 ]; then
    echo "passed $took 0" >"$out/$name.step"
    echo "$name: passed in $took s"
  else
    echo "failed $took $code" >"$out/$name.step"
    failed=1
    echo "$name: FAILED ($code) after $took s; the end of $out/$name.log:"
  fi
  if [ "$code" != 0 ] || [[ $phase =~ [1236] ]]; then tail -n 20 "$out/$name.log" | cut -c 1-180; fi
  collect
}
passed() { [ -e "$out/$1.step" ] && grep -q '^passed' "$out/$1.step"; }
has() { "$python" -c "import importlib.util as i, sys; sys.exit(i.find_spec('$1') is None)" >/dev/null 2>&1; }

# The functions below are called by name, through step.
# shellcheck disable=SC2329
machine() {
  "$python" - "$device" <<'CHECK'
import importlib, importlib.metadata, sys
essential = ("numpy",) + (("cupy", "pybind11") if sys.argv[1:] != ["cpu"] else ())
wrong = []
for name in essential:
    try:
        print(name, importlib.import_module(name).__version__)
    except ImportError as error:
        wrong.append(f"{name} ({error})")
for name in ("torch", "torchvision", "onnx", "onnxruntime", "onnxscript", "safetensors", "pyyaml", "pillow", "pytest",
             "hypothesis", "pytest-xdist", "av", "faster-coco-eval", "rich", "typer", "supervision"):
    try:
        print(name, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        print(f"{name} is missing")
sys.exit(f"missing, and nothing runs without: {', '.join(wrong)}" if wrong else 0)
CHECK
  local code=$?
  [ "$device" = cpu ] && return $code
  nvidia-smi --query-gpu=name,driver_version,compute_cap,memory.total --format=csv || return 1
  nvcc --version | tail -n 2
  return $code
}

# shellcheck disable=SC2329
wheels() {
  local lacking
  lacking=$("$python" - "$packed"/wheels/*.whl <<'LACKING'
import importlib.metadata, pathlib, sys
for wheel in filter(pathlib.Path.exists, map(pathlib.Path, sys.argv[1:])):
    try:
        importlib.metadata.version(wheel.name.split("-")[0])
    except importlib.metadata.PackageNotFoundError:
        print(wheel)
LACKING
  ) || return 1
  # shellcheck disable=SC2086
  if [ -n "$lacking" ]; then
    "$python" -m pip install --quiet --no-index --no-deps --no-compile --upgrade --target "$out/site" $lacking
  fi
  echo "installed: $lacking"
}

# configure_and_build OPTION...: the modules for this Python.
# shellcheck disable=SC2329
configure_and_build() {
  cmake -S . -B "$out/cmake" -G Ninja -DCMAKE_BUILD_TYPE=Release -DRDN_CUDA=on "$@" \
    "-DCMAKE_LIBRARY_OUTPUT_DIRECTORY=$PWD/rdn_engine/kernels" "-DPython_EXECUTABLE=$(command -v "$python")" \
    "-Dpybind11_DIR=$("$python" -m pybind11 --cmakedir)" && cmake --build "$out/cmake" --parallel &&
    "$python" -c "import rdn_engine.kernels._C, rdn_engine.kernels._cuda"
}

# shellcheck disable=SC2329
build() {
  if [ -n "$packed" ]; then
    if [ "$(cat "$packed/sources")" != "$(scripts/gpu_sources.sh csrc/cuda csrc/include)" ]; then
      echo "$packed/librdn_cuda.so is of other sources than csrc/cuda: kernels are compiled here"
    elif configure_and_build "-DRDN_CUDA_LIBRARY=$packed/librdn_cuda.so"; then
      return 0
    else
      echo "the packed library does not do here: kernels are compiled here"
    fi
    rm -rf "$out/cmake"
  fi
  configure_and_build -DRDN_CUDA_ARCHITECTURES=native
}

# Synthetic weights of the paper's size.
# shellcheck disable=SC2329
model() {
  if [ -n "$packed" ]; then
    "$python" benchmarks/frame/seeded.py "$packed/model" "$out/r101"
  else
    "$python" benchmarks/frame/models.py "$out/r101" --precision fp16
  fi
}

# Small cases: the sanitizer slows kernels down a hundredfold.
# shellcheck disable=SC2329
sanitize() {
  compute-sanitizer --tool "$1" --error-exitcode 9 "$python" scripts/gpu_smoke.py --only kernels --output "$out/$1.json"
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
  "$python" -m pytest -p no:cacheprovider -rs "${spread[@]}" "$@" tests
}
export -f build configure_and_build device_tests machine model sanitize suite wheels

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
leave_out_tests() {
  leave_out "the network" tests/backends/tensorrt/test_backend.py::test_types_are_those_of_the_real_bindings \
    tests/test_install.py::test_the_runtime_needs_no_torch tests/test_install.py::test_the_console_script_verifies_a_bundle \
    tests/test_install.py::test_a_cuda_build_that_cannot_be_had_fails_loudly
  has tensorrt_rtx_bindings || has tensorrt_rtx || leave_out "TensorRT for RTX" \
    tests/backends/tensorrt/test_backend.py::test_every_graph_compiles_in_every_floating_precision \
    tests/backends/tensorrt/test_backend.py::test_quantised_graphs_compile \
    tests/backends/tensorrt/test_backend.py::test_graphs_of_codes_compile \
    tests/backends/tensorrt/test_backend.py::test_a_graph_that_does_not_parse_is_named \
    tests/backends/tensorrt/test_backend.py::test_ctrl_c_ends_a_build \
    tests/backends/tensorrt/test_backend.py::test_the_build_command_builds_once_for_each_set_of_limits \
    tests/backends/tensorrt/test_backend.py::test_what_cannot_be_built_is_one_message
  [ -n "${TENSORRT_ROOT:-}" ] || leave_out "TensorRT's headers (TENSORRT_ROOT)" \
    tests/backends/tensorrt/test_plugin_graph.py::test_it_compiles_against_the_real_header
  grep -q avx512_bf16 /proc/cpuinfo || leave_out "a processor with AVX512-BF16" \
    tests/host/test_relation.py::test_bfloat16_computes_nearly_the_definition
  has supervision || leave_out "supervision" tests/test_results.py
  # Tests that fail for want of one of these are skipped by tests/conftest.py, which names them.
  RDN_MISSING=
  for one in av typer rich faster_coco_eval safetensors yaml onnxscript torchvision; do
    has "$one" || RDN_MISSING+=" $one"
  done
  export RDN_MISSING
  [ -z "$RDN_MISSING" ] || echo "left out where a test wants them:$RDN_MISSING"
}

engines=$out/r101/fp16
backend=torch
smoke=("$python" scripts/gpu_smoke.py "${quick[@]}")
latency=("$python" benchmarks/frame/latency.py --engines "$engines" --backend "$backend" --device cuda --rounds 10)
expected=()
if [ -n "$packed" ]; then expected=(--expected "$packed/expected.npz"); fi
if [ "$device" = cpu ]; then
  engines=models/rdn_tiny/engines backend=onnxruntime expected=()
  latency=("$python" benchmarks/frame/latency.py --quick --rounds 1)
fi
add 0 machine 20 - machine
if [ "$device" = cuda ]; then
  [ -z "$packed" ] || add 0 wheels 20 - wheels
  if [ -n "$packed" ]; then add 0 build 100 machine build; else add 0 build 240 machine build; fi
  built=build
else
  built=machine
fi
add 1 kernels_smoke 45 "$built" "${smoke[@]}" --only kernels --output "$out/kernels_smoke.json"
add 1 tiny 45 "$built" "${smoke[@]}" --only tiny --output "$out/tiny.json"
modelled=$built
if [ "$device" = cuda ]; then
  if [ -n "$packed" ]; then add 0 model 40 "$built" model; else add 0 model 300 "$built" model; fi
  modelled=model
fi
add 1 window 60 "$modelled" "${smoke[@]}" --only window --engines "$engines" --backend "$backend" "${expected[@]}" \
  --output "$out/window.json"
add 2 steady 60 "$modelled" "$python" benchmarks/frame/steady_frame.py --engines "$engines" --backend "$backend" \
  --device "$device" ${quick[0]:+--quick} --output "$out/steady.json"
add 2 against 90 "$modelled" "${latency[@]}" --against baseline --sweeps baseline ends --output "$out/against.json"
add 3 streams 70 "$modelled" "${latency[@]}" --sweeps streams --output "$out/streams.json"
add 3 kernels 70 "$built" "$python" benchmarks/kernel/kernels_cuda.py "${quick[@]}" --output "$out/kernels.json"
if [ "$device" = cpu ]; then
  add 6 training 120 machine "$python" benchmarks/quality/training_throughput.py --quick --workers 0 --output "$out/training.json"
else
  add 4 memcheck 100 "$built" sanitize memcheck
  add 4 racecheck 100 "$built" sanitize racecheck
  add 5 device_tests 180 "$built" device_tests
  add 5 suite 300 "$built" suite
  add 6 training 180 "$built" "$python" benchmarks/quality/training_throughput.py --device cuda --workers 4 8 \
    --output "$out/training.json"
fi

for one in "${plan[@]}"; do echo "$one ${titles[${one%% *}]}"; done >"$out/plan"
if [ -n "$before" ]; then "$python" scripts/gpu_results.py resume "$out" "$before"; fi
# Which tests are left out is found out when they are due: it takes seconds.
run_step() {
  if [ "$2" = suite ] && passed "${need[suite]}"; then
    leave_out_tests
    command[suite]=$(printf '%q ' suite "${left_out[@]}")
  fi
  step "$@"
}
# First what has not run, then what has failed in an earlier run.
again=()
for one in "${plan[@]}"; do
  name=${one#* }
  if passed "$name"; then
    echo "$name: passed before"
  elif [ -e "$out/$name.step" ] && [ "${one%% *}" != 0 ]; then
    again+=("$one")
  else
    run_step "${one%% *}" "$name"
  fi
done
for one in ${again[@]+"${again[@]}"}; do
  echo "${one#* }: once more"
  run_step "${one%% *}" "${one#* }"
done
exit $failed
