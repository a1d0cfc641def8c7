# shellcheck shell=bash
# roots.sh - other releases of Debian, in folders of the cache: what test/matrix and
# test/package share.  To be sourced after lib.sh, with $root set.  Each root is made
# once (debootstrap); no cluster is created in it.

# name, suite, further suite, PostgreSQL
combinations='
bookworm	bookworm	-		15
trixie		trixie		-		17
sid			sid			-		18
sid-19		sid			experimental	19
'
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}

# Roots want root, and something must be mounted in them.
possible() {
	local folder status=0
	[ "$(id -u)" = 0 ] || return 1
	folder=$(mktemp -d)
	mount -t tmpfs tmpfs "$folder" 2>/dev/null && umount "$folder" || status=1
	rmdir "$folder" || status=1
	return "$status"
}

# What roots are made with, and where; ends us when it cannot be.
# shellcheck disable=SC2154  # root, of the script that sources this
prepare_roots() {
	possible || die "needs root, and the right to mount: it makes roots of other Debian releases"
	"$root/test/setup"
	command -v debootstrap >/dev/null || "$root/test/setup" --packages debootstrap
	kafka=$(kafka_home)
	cache=$(kafka_caches | head -n 1)
	mkdir -p "$cache/roots"
}

here=
cache=
kafka=
leave() {
	[ -n "$here" ] || return 0
	end_processes_in "$here" || true
	umount -l "$here/proc" "$here/dev/shm" "$here/kafka/kafka-$KAFKA_VERSION" 2>/dev/null || true
	here=
}
trap leave EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# enter NAME: its root is $here, with what programs expect to be mounted.
enter() {
	here=$cache/roots/$1
	mkdir -p "$here/dev/shm" "$here/kafka/kafka-$KAFKA_VERSION" "$here/proc"
	mountpoint -q "$here/proc" || mount -t proc proc "$here/proc"
	mountpoint -q "$here/dev/shm" || mount -t tmpfs tmpfs "$here/dev/shm"
	mountpoint -q "$here/kafka/kafka-$KAFKA_VERSION" ||
		mount -o bind,ro "$kafka" "$here/kafka/kafka-$KAFKA_VERSION"
}

# inside COMMAND...: with an environment of its own.
inside() {
	local given=() name
	for name in KAFKA_VERSION VERBOSE KEEP TEST_TIMEOUT TEST_JOBS; do
		[ -z "${!name:-}" ] || given+=("$name=${!name}")
	done
	while read -r name; do
		given+=("$name=${!name}")
	done < <(compgen -e CARSHOP_TEST_ || true)
	chroot "$here" env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
		HOME=/root LANG=C.UTF-8 CARSHOP_CACHE=/kafka WERROR=1 \
		PG_CONFIG="/usr/lib/postgresql/$major/bin/pg_config" "${given[@]}" "$@"
}

# make_root NAME SUITE FURTHER: unless it is there.
make_root() {
	local dir=$cache/roots/$1
	[ ! -e "$dir/made" ] || return 0
	say "$1: making its root"
	# --one-file-system: whatever a run that was killed has left mounted stays
	rm -rf --one-file-system "$dir"
	debootstrap --variant=minbase "$2" "$dir" "$mirror" >"$dir.log" 2>&1 || {
		tail -n 20 "$dir.log" >&2
		return 1
	}
	mkdir -p "$dir/etc/postgresql-common/createcluster.d"
	echo "create_main_cluster = false" >"$dir/etc/postgresql-common/createcluster.d/carshop.conf"
	printf '#!/bin/sh\nexit 101\n' >"$dir/usr/sbin/policy-rc.d"
	chmod 755 "$dir/usr/sbin/policy-rc.d"
	# release files of suites that do not move are past their date
	echo 'Acquire::Check-Valid-Until "false";' >"$dir/etc/apt/apt.conf.d/carshop"
	if [ "$3" != - ]; then
		echo "deb $mirror $3 main" >"$dir/etc/apt/sources.list.d/further.list"
		# only what it is wanted for
		printf 'Package: postgresql* libpq*\nPin: release a=%s\nPin-Priority: 990\n' "$3" \
			>"$dir/etc/apt/preferences.d/further"
	fi
}

# fill_root NAME: this PostgreSQL, and what test/setup finds missing beside it.
fill_root() {
	local name=$1
	[ ! -e "$here/made" ] || return 0
	say "$name: installing"
	{
		inside apt-get -q update &&
			inside DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends \
				"postgresql-$major" "postgresql-server-dev-$major" &&
			copy_sources && inside /src/test/setup
	} >>"$cache/roots/$name.log" 2>&1 || {
		tail -n 20 "$cache/roots/$name.log" >&2
		return 1
	}
	inside apt-get clean
	: >"$here/made"
}

# The files of the tree, with what is not committed, into /src.
# shellcheck disable=SC2154  # root
copy_sources() {
	rm -rf "$here/src"
	mkdir "$here/src"
	(cd "$root" && git ls-files -z --cached --others --exclude-standard |
		tar c --null --ignore-failed-read -T - 2>/dev/null) | tar x -C "$here/src"
}

# choose NAME: sets suite, further and major.
choose() {
	read -r _ suite further major < <(awk -v name="$1" '$1 == name' <<<"$combinations") ||
		die "there is no combination $1"
}

# open_root NAME: made, filled and entered.
open_root() {
	make_root "$1" "$suite" "$further" && enter "$1" && fill_root "$1"
}
