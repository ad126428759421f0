# shellcheck shell=bash
# What `compose/prepare` and `kubernetes/secrets` share: an authority, certificates, bootstrap files and passwords in a folder. What is
# there stays as it is. The command `chancery` comes from CHANCERY (a path), PATH, or the image.

readonly image=ghcr.io/chancery/chancery:0.1.0

# Makes a folder that nobody but its owner gets into, and prints where it is. All below happens in `folder`.
private() {
  mkdir -p "$1"
  chmod 0700 "$1"
  (cd "$1" && pwd)
}
folder=

chancery() {
  if [[ -n ${CHANCERY:-} ]]; then
    "$CHANCERY" "$@"
  elif type -P chancery >/dev/null; then
    "$(type -P chancery)" "$@"
  else
    docker run --rm --user "$(id -u):$(id -g)" --volume "$folder:$folder" "$image" chancery "$@"
  fi
}

# A certificate of the folder's authority in $1, for 90 days; the rest says for whom.
issue() {
  local out=$1
  shift
  [[ -e $out/tls.crt ]] && return
  chancery cert issue "$@" --ca-dir "$folder/ca" --create-ca --out "$out" --ttl 2160h --output json >/dev/null
}

# What a proxy starts with, in the file $1; the rest says who it is.
start_file() {
  local out=$1
  shift
  [[ -e $out ]] && return
  chancery bootstrap "$@" >"$out.new"
  mv "$out.new" "$out"
}

# A file of the folder with $2, unless there is one.
file() {
  [[ -e $folder/$1 ]] || printf '%s\n' "$2" >"$folder/$1"
}

random() { head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \n'; }
