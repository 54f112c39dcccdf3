# Sourced by the scripts beside this file and by .ci/run. Needs the directory of the checkout in $root.

# Each process of the tests imports modules anew: byte code takes a tenth of the time.
unset PYTHONDONTWRITEBYTECODE

# A Python that this project supports: $PYTHON, or that of the present environment, or the first that is found.
find_python() {
    if [ -z "${PYTHON:-}" ] && "$root/.venv/bin/python" -c '' 2>/dev/null; then
        echo "$root/.venv/bin/python"
        return
    fi
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 python}; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    echo "No Python 3.11 or newer was found${PYTHON:+ as $PYTHON}: name one in the variable PYTHON." >&2
    return 1
}

is_free_threaded() {
    "$1" -c 'import sys, sysconfig; sys.exit(not sysconfig.get_config_var("Py_GIL_DISABLED"))'
}

# make_environment DIRECTORY PYTHON [GROUP...]
# Make a virtual environment with this package and dependency groups of pyproject.toml in it: once, and again when
# pyproject.toml, the compiled part or the interpreter have changed.
make_environment() {
    directory=$1 interpreter=$2
    shift 2
    version=$("$interpreter" -c 'import sys; print(sys.version, sys.base_prefix)') || return 1
    stamp="$(cat "$root/pyproject.toml" "$root/hatch_build.py" "$root"/src/_anyfork_child/template/_fast.c | cksum) $version"
    stamped="$directory/stamp-$(echo "$*" | tr ' ' '-')"
    [ "$(cat "$stamped" 2>/dev/null)" = "$stamp" ] && return
    echo "Preparing ${directory##*/} ..." >&2
    built=$("$directory/bin/python" -c 'import sys; print(sys.version, sys.base_prefix)' 2>/dev/null) || built=
    if [ "$built" != "$version" ]; then
        "$interpreter" -m venv --clear "$directory" || return 1
    fi
    (
        cd "$root" || exit 1
        groups=
        for group; do
            if [ "$group" = test ] && is_free_threaded "$interpreter"; then group=test-free-threaded; fi
            groups="$groups $group"
        done
        # shellcheck disable=SC2086 # one word for each group
        "$directory/bin/python" scripts/requirements.py $groups >"$directory/requirements.txt" &&
            # Tests of the Python twin build the compiled part, too.
            env -u ANYFORK_COMPILED "$directory/bin/python" -m pip -qq --disable-pip-version-check --no-input \
                install --prefer-binary --editable . --requirement "$directory/requirements.txt"
    ) || return 1
    echo "$stamp" >"$stamped"
}
