# shellcheck shell=bash
# scratch.sh - what test/run, demo/run and bench/run share: a scratch directory
# that holds the staged build and a copy of the tree, and a user without
# privileges who works in it.  To be sourced after lib.sh, with $root set.
#
# Nothing is written into the system: the build goes into a staging folder, and
# servers have their data and sockets in the scratch directory.

scratch=
inner=

# Everything that was started ends with us, however we end.
open_scratch() {
	# /tmp rather than a long path: socket names are limited to 107 bytes.
	scratch=$(mktemp -d "${TMPDIR:-/tmp}/carshop.XXXXXX")
	scratch=$(readlink -f "$scratch")
	mkdir "$scratch/tree" "$scratch/home" "$scratch/tmp"
	PG_CONFIG=$(choose_pg_config)
	trap close_scratch EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM HUP
}

# End what runs in the scratch directory.
end_scratch_processes() {
	trap '' INT TERM HUP
	if [ -n "$inner" ]; then
		kill -s TERM -- "-$inner" 2>/dev/null || true
		inner=
	fi
	[ -z "$scratch" ] || end_processes_in "$scratch"
}

close_scratch() {
	end_scratch_processes
	[ -z "$scratch" ] || rm -rf "$scratch"
	scratch=
}

# Without the flags of a make that called us: its targets are not ours.
# shellcheck disable=SC2154  # root, of the script that sources this
run_make() {
	env -u MAKEFLAGS -u MAKELEVEL -u MFLAGS make -s -C "$root" \
		PG_CONFIG="$PG_CONFIG" ${WERROR:+WERROR="$WERROR"} "$@"
}

# build_scratch GOAL...: builds them, installs into the staging folder, and
# copies what the inner user works with: he may not be allowed to read the tree.
build_scratch() {
	local folder started=$SECONDS
	if ! (
		# One build of this tree at a time.
		flock 9
		run_make -j "$(nproc)" "$@" && run_make install DESTDIR="$scratch/stage"
	) 9<"$root/Makefile" >"$scratch/build.log" 2>&1; then
		cat "$scratch/build.log" >&2
		return 1
	fi
	# Warnings, when they are not errors.
	cat "$scratch/build.log" >&2
	say "built in $((SECONDS - started)) s"
	for folder in test expected sql src demo bench build Makefile carshop_outbox.control README.md; do
		[ ! -e "$root/$folder" ] || cp -r "$root/$folder" "$scratch/tree/"
	done
}

# run_inside VARIABLE=VALUE... -- COMMAND...: in the copy of the tree, with an
# environment of its own, as a user without privileges if we are root.
run_inside() {
	local kafka status=0 as_user=() environment=()
	kafka=$(kafka_home) || return 1
	environment=(
		PATH="$PATH" LANG=C.UTF-8 TZ=UTC HOME="$scratch/home" TMPDIR="$scratch/tmp"
		PG_CONFIG="$PG_CONFIG" CARSHOP_SCRATCH="$scratch"
		CARSHOP_CACHE="${kafka%/*}" KAFKA_VERSION="$KAFKA_VERSION"
	)
	while [ "$1" != -- ]; do
		environment+=("$1")
		shift
	done
	shift
	# initdb and the server refuse root.  `nobody`, because `postgres` would have
	# rights on the clusters of the machine.
	if [ "$(id -u)" = 0 ]; then
		as_user=(setpriv --reuid=nobody --regid="$(id -g nobody)" --clear-groups --no-new-privs)
		chown -R "nobody:$(id -g nobody)" "$scratch"
	fi
	# In a process group of its own, and waited for as a job: a trap of this
	# shell then runs at once, and not when the command has ended.
	set -m
	(cd "$scratch/tree" && exec "${as_user[@]}" env -i "${environment[@]}" "$@") </dev/null &
	inner=$!
	set +m
	wait "$inner" || status=$?
	inner=
	return "$status"
}

# ---- for those who work inside ----

# stage_settings STAGE: the lines of postgresql.conf that let a server load the
# build from there.  On Debian extension_destdir finds the control and SQL files,
# but not the library.
stage_settings() {
	echo "dynamic_library_path = '$1$("$PG_CONFIG" --pkglibdir):\$libdir'"
	if [ "$("$PG_CONFIG" --version | sed 's/^[^0-9]*\([0-9]*\).*/\1/')" -ge 18 ]; then
		echo "extension_control_path = '$1$("$PG_CONFIG" --sharedir):\$system'"
	else
		echo "extension_destdir = '$1'"
	fi
	echo "shared_preload_libraries = 'carshop_outbox'"
}

# start_server DIR SETTING...: a new server for the user postgres, with its data
# in DIR/data and its socket in DIR, that loads the staged build.
start_server() {
	local dir=$1 bindir
	shift
	bindir=$("$PG_CONFIG" --bindir)
	mkdir -p "$dir"
	"$bindir/initdb" -D "$dir/data" -U postgres -A trust -N -E UTF8 --locale=C.UTF-8 \
		>"$dir/initdb.log" 2>&1 || {
		cat "$dir/initdb.log" >&2
		return 1
	}
	{
		stage_settings "$CARSHOP_SCRATCH/stage"
		echo "listen_addresses = ''"
		echo "unix_socket_directories = '$dir'"
		printf '%s\n' "$@"
	} >>"$dir/data/postgresql.conf"
	"$bindir/pg_ctl" -D "$dir/data" -l "$dir/server.log" -w -s start || {
		tail -n 40 "$dir/server.log" >&2
		return 1
	}
}

stop_server() {
	"$("$PG_CONFIG" --bindir)/pg_ctl" -D "$1/data" -m fast -w -s stop
}
