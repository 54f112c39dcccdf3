# Sourced by test-all and by .ci/run, after environment.sh. Needs bash and the directory of the checkout in $root.
# shellcheck shell=bash

# The interpreters that the tests run on. "debian" is the distribution's own python3, in Debian 12 CPython 3.11.2.
VERSIONS=(3.11 debian 3.12 3.13 3.13t 3.14 3.15)

# installed X.Y: print the path of that interpreter of this machine: pyenv's newest, or one on the PATH.
installed() {
    local versions candidate
    versions=${PYENV_ROOT:-$(pyenv root 2>/dev/null || echo "$HOME/.pyenv")}/versions
    while read -r candidate; do
        if "$candidate" -c "import sys, venv; sys.exit('%d.%d' % sys.version_info[:2] != '$1')" 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done < <(
        printf '%s\n' "$versions/$1".*/bin/python3 | sort -rV
        type -ap "python$1"
    )
    return 1
}

# Some versions run in a root directory of their own: a prefix for commands that are to see it.
runner_of() {
    runner=()
    case $1 in
    3.13t | 3.14 | 3.15) runner=("$root/scripts/interpreters" run "$1") ;;
    esac
}

# provide VERSION: see that the interpreter is there, and set $python and $runner to what runs it.
provide() {
    runner_of "$1"
    case $1 in
    3.13t) "$root/scripts/interpreters" free-threaded && python=python3 ;;
    3.14 | 3.15) "$root/scripts/interpreters" sid && python=python3 ;;
    debian) python=/usr/bin/python3 ;;
    *) python=$(installed "$1") ;;
    esac || {
        echo "There is no Python $1 here." >&2
        return 1
    }
}

# prepare VERSION: see that the interpreter is there, with an environment for tests in .venv-VERSION.
prepare() {
    local python runner
    provide "$1" || return
    # shellcheck disable=SC2016 # the shell that runs there expands it
    "${runner[@]}" sh -ec '
        root=$1
        . "$root/scripts/environment.sh"
        make_environment "$root/.venv-$2" "$(command -v "$3")" test' - "$root" "$1" "$python"
}

# run_tests VERSION ARGUMENT...: run pytest there; what failed runs once more, alone. What passes only then is named.
run_tests() {
    local version=$1 runner python
    shift
    runner_of "$version"
    python=("${runner[@]}" "$root/.venv-$version/bin/python" -m pytest -o "cache_dir=.pytest_cache/$version")
    "${python[@]}" -n 4 --dist worksteal "$@" && return
    printf '\n--- once more, one at a time, what failed:\n'
    "${python[@]}" "$@" -n 0 --last-failed --last-failed-no-failures none
}
