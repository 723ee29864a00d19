# Sourced by detect and test, which set $root, the project's folder. POSIX sh; works in bash 3.2 as well.

unset PYTHONHOME PYTHONPATH PYTHONDONTWRITEBYTECODE

# environment FOLDER LOCK: makes FOLDER of the project from scripts/locks/LOCK.txt, unless it is there already
# for the same lock, pyproject.toml, Python and place. Sets $env.
environment() {
    env=$root/$1
    lock=$root/scripts/locks/$2.txt
    if [ "$(cat "$env/stamp" 2>/dev/null)" != "$(stamp "$env/bin/python")" ]; then
        newest_python
        "$python" -I "$root/scripts/environment.py" make "$env" "$lock" "$(stamp "$python")" || exit
    fi
}

stamp() {
    echo "$(cat "$root/pyproject.toml" "$lock" | cksum) $("$1" -V 2>/dev/null) $root"
}

# newest_python: sets $python to the newest Python on PATH that is fit. A name may be there and still not run (pyenv).
newest_python() {
    newest=0 seen=
    for name in python3 python3.14 python3.13 python3.12 python3.11; do
        minor=$("$name" -I -c 'import sys; print(sys.version_info[1])' 2>/dev/null) || continue
        if [ "$minor" -lt 11 ] || [ "$minor" -gt 14 ]; then
            seen="$seen; $name is Python 3.$minor"
        elif ! "$name" -I -c 'import ensurepip, venv' 2>/dev/null; then
            seen="$seen; $name lacks venv (Debian, Ubuntu: apt-get install python3.$minor-venv)"
        elif [ "$minor" -gt "$newest" ]; then
            newest=$minor python=$name
        fi
    done
    if [ "$newest" = 0 ]; then
        echo "Python 3.11, 3.12, 3.13 or 3.14 with venv is needed on PATH${seen:-; no Python 3 is there}." >&2
        exit 2
    fi
}
