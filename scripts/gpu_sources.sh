#!/usr/bin/env bash
# The state of files and folders, as one digest: not of what a build or a run leaves behind.
#     scripts/gpu_sources.sh PATH...
set -euo pipefail
cd "$(dirname "$0")/.."
find "$@" -type f ! -name '*.so' ! -name '*.pyc' ! -path 'benchmarks/results/*' -print0 | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum | cut -d ' ' -f 1
