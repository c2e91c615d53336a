# Two commands: `make demo` shows the product at work, `make test` proves it. Both need Python 3.11+ and a C++ compiler.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
VIDEO ?=
PYTHONS ?=
DEMO := demo

.PHONY: demo test test-isa instruction-sets wheel lint format accuracy prices performance faults soak serve-benchmarks scale clean

# Each stamp is one level of installation; the build of the C++ kernels belongs to the first.
SOURCES := pyproject.toml setup.py CMakeLists.txt $(shell find csrc -type f)

$(VENV)/runtime.stamp: $(SOURCES)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "$(PYTHON) is $$($(PYTHON) -V 2>&1); wanted Python 3.11 or newer (make PYTHON=python3.12 ...)"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { \
	  echo "could not make a virtual environment; on Debian and Ubuntu: apt install python3-venv python3-dev"; exit 1; }
	$(BIN)/pip install --quiet --editable .
	@touch $@

$(VENV)/dev.stamp: $(VENV)/runtime.stamp
	$(BIN)/pip install --quiet --editable '.[train,export,supervision,evaluate,tracking,openvino,serve,mqtt,otel,ray,triton,dev]'
	$(BIN)/pip install --quiet --no-deps nvidia-pytriton==0.7.0  # for its server alone
	@touch $@

# The annotated video of a rendered clip, and of VIDEO= when given; needs no torch.
demo: $(VENV)/runtime.stamp
	@$(BIN)/python examples/demo.py --engines models/rdn_tiny/engines --output $(DEMO) $(if $(VIDEO),--video '$(VIDEO)')

# WORKERS tests at once, each with one thread: libraries that start one a core would wait for each other.
WORKERS ?= 2

test: $(VENV)/dev.stamp
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

$(VENV)/release.stamp: $(VENV)/runtime.stamp
	$(BIN)/pip install --quiet --editable '.[release]'
	@touch $@

# dist/: the sdist, and manylinux wheels for Python 3.11 to 3.13, those found here or PYTHONS='3.12 /path/to/python3.13';
# each is tried out without torch and without a compiler before it gets there.
wheel: $(VENV)/release.stamp
	@$(BIN)/python scripts/make_wheels.py --engines models/rdn_tiny/engines --output dist \
	  $(if $(PYTHONS),--pythons $(PYTHONS))

# The kernels once more as on processors with less: RDN_ISA names the kernels, and a name this machine lacks is an error.
ISA ?= avx2 baseline

test-isa: $(VENV)/dev.stamp
	for isa in $(ISA); do RDN_ISA=$$isa $(BIN)/python -m pytest -m isa \
	  tests/kernels/cpu tests/host tests/test_verify.py || exit 1; done

# Parity and kernels under every library's own lower instruction sets, one by one: half an hour.
instruction-sets: $(VENV)/dev.stamp
	$(BIN)/python scripts/instruction_sets.py

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $$(git ls-files 'csrc/*.h' 'csrc/*.cpp' 'csrc/*.cu' 'csrc/*.cuh')

format: $(VENV)/dev.stamp
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $$(git ls-files 'csrc/*.h' 'csrc/*.cpp' 'csrc/*.cu' 'csrc/*.cuh')

# Trains and evaluates every row of docs/accuracy.md: hours; stopped at any point, it goes on where it was.
accuracy: $(VENV)/dev.stamp
	$(BIN)/python benchmarks/quality/accuracy.py
	$(BIN)/python benchmarks/report/report.py

MODELS := $(BIN)/python benchmarks/frame/models.py
LATENCY := $(BIN)/python benchmarks/frame/latency.py
RESULTS := benchmarks/results

# The price list of docs/performance.md, and docs/tuning.md. Times are of the machine that this runs on, and their files' names say its
# instruction set: those of another machine stay beside them. AP50 is the same on all.
ISA_HERE = $$($(BIN)/python -c 'from rdn_engine.kernels import _C; print(_C.isa)')

prices: $(VENV)/dev.stamp
	for p in float32 int8; do $(MODELS) engines/r101 --precision $$p || exit 1; done
	for of in demo=models/rdn_tiny/engines r101_float32=engines/r101/float32 r101_int8=engines/r101/int8; do \
	  $(LATENCY) --engines $${of#*=} --sweeps interval still threshold ring backend --backends onnxruntime openvino \
	    --output $(RESULTS)/prices_$${of%%=*}_$(ISA_HERE).json || exit 1; done
	for what in interval still ring tune; do \
	  $(BIN)/python benchmarks/quality/$${what}_accuracy.py --bundle models/rdn_tiny/engines \
	    --output $(RESULTS)/$${what}_accuracy.json || exit 1; done
	$(BIN)/python benchmarks/report/report.py

# Measures every figure of docs/performance.md but the comparison with an earlier commit: two hours on two cores that have nothing else to do, 8 GB of disk for the
# synthetic models under engines/; stopped at any point, it goes on where it was.
N_B := 0 1 3 4

performance: prices
	for p in float32 int8; do \
	  $(MODELS) engines/r101 --precision $$p && $(MODELS) engines/r101_basic --basic-only --precision $$p || exit 1; done
	for n in $(N_B); do $(MODELS) engines/r101_nb$$n --num-basic $$n || exit 1; done
	$(MODELS) engines/x101 --backbone resnext101_64x4d
	$(LATENCY) --engines engines/r101/float32 engines/r101/int8 --sweeps baseline --against baseline \
	  --output $(RESULTS)/latency_r101_sides.json
	for p in float32 int8; do \
	  $(LATENCY) --engines engines/r101_basic/$$p --sweeps K --output $(RESULTS)/latency_r101_basic_$$p.json && \
	  $(LATENCY) --engines engines/r101/$$p --sweeps T r N first executor resolution threads streams batch \
	    --output $(RESULTS)/latency_r101_$$p.json || exit 1; done
	$(LATENCY) --engines engines/r101/float32 --sweeps backend --backends onnxruntime torch \
	  --output $(RESULTS)/latency_r101_float32.json
	$(LATENCY) --engines engines/r101/float32 engines/r101/int8 $(N_B:%=engines/r101_nb%/float32) engines/x101/float32 \
	  --sweeps bundles --output $(RESULTS)/latency_r101_bundles.json
	$(LATENCY) --quick --output $(RESULTS)/latency_demo.json
	$(BIN)/python benchmarks/kernel/kernels.py --output $(RESULTS)/kernels_cpu.json
	$(BIN)/python benchmarks/kernel/relation.py --output $(RESULTS)/relation_cpu.json
	$(BIN)/python benchmarks/kernel/cosine.py --output $(RESULTS)/cosine_cpu.json
	$(BIN)/python benchmarks/report/report.py

# Every fault of a camera against real servers (scripts/test_servers.sh), and the table of docs/production.md: minutes.
# FLAP_SECONDS is for how long servers of some streams die at random.
FLAP_SECONDS ?= 600

faults: $(VENV)/dev.stamp
	$(BIN)/python benchmarks/serve/faults.py --flap-seconds $(FLAP_SECONDS) --output $(RESULTS)/faults.json
	$(BIN)/python benchmarks/report/report.py

# Sixteen flapping streams for half an hour: memory, threads and descriptors may not grow.
SOAK_SECONDS ?= 1800

soak: $(VENV)/dev.stamp
	$(BIN)/python benchmarks/serve/soak.py --seconds $(SOAK_SECONDS) --output $(RESULTS)/soak.json
	$(BIN)/python benchmarks/report/report.py

# Many streams against many processes, and ages of results under load; a quarter of an hour on cores that have nothing else to do.
serve-benchmarks: $(VENV)/dev.stamp
	for n in 8 16; do \
	  $(BIN)/python benchmarks/serve/scheduler.py --streams $$n --output $(RESULTS)/scheduler_$$n.json || exit 1; done
	$(BIN)/python benchmarks/serve/load.py --output $(RESULTS)/load_demo.json
	$(BIN)/python benchmarks/report/report.py

# Archives and streams beyond one process, on real servers, and their one table (docs/scale.md): half an hour, in an
# environment of its own. WHAT=ray leaves the others out, QUICK=1 takes a few minutes and keeps the committed results.
WHAT ?=
QUICK ?=

.venv-scale/stamp: $(SOURCES)
	test -x .venv-scale/bin/python || $(PYTHON) -m venv .venv-scale
	.venv-scale/bin/pip install --quiet --editable '.[ray,triton]'
	.venv-scale/bin/pip install --quiet --no-deps nvidia-pytriton==0.7.0
	@touch $@

scale: .venv-scale/stamp
	.venv-scale/bin/python benchmarks/serve/scale.py $(if $(WHAT),--what $(WHAT)) \
	  $(if $(QUICK),--quick --results $(DEMO)/scale,--results $(RESULTS))

clean:
	rm -rf build dist *.egg-info rdn_engine/kernels/*.so $(VENV) .venv-scale $(DEMO)
