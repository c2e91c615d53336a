# What the options of gpu_pack.sh and gpu_check.sh have in common. To be sourced.

# usage SCRIPT: the comment at its top.
usage() { sed -n '2,/^set /s/^# \{0,1\}//p' "$1"; }

# refuse WORDS...: on stderr, as wrong usage.
refuse() {
  echo "$*; --help says more" >&2
  exit 2
}

# value WHAT OPTION [VALUE]: into REPLY.
value() {
  if [ -z "${3:-}" ] || [[ $3 == --* ]]; then refuse "$2 is given without a value; wanted $2 $1"; fi
  REPLY=$3
}

# wanted OPTION VALUE PATTERN WHAT: the whole value is of the pattern.
wanted() { [[ $2 =~ ^($3)$ ]] || refuse "$1 is '$2'; wanted $4"; }

# program OPTION VALUE: one that can be started.
program() { command -v "$2" >/dev/null || refuse "$1 is '$2', which is no program; wanted a Python"; }
