# shellcheck shell=bash
# lib.sh - what test/setup, test/kafka and test/run share.  To be sourced.

KAFKA_VERSION=${KAFKA_VERSION:-4.2.0}
export KAFKA_VERSION

# Warnings and worse, on the standard error.
# shellcheck disable=SC2034  # for the scripts that source this
case $KAFKA_VERSION in
[0-3].*)
	JAVA_LOGGING=("-Dlog4j.configuration=file:$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/log4j.properties")
	;;
*)
	JAVA_LOGGING=(
		-Dorg.slf4j.simpleLogger.defaultLogLevel=warn
		-Dorg.slf4j.simpleLogger.showDateTime=true
		-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS
	)
	;;
esac

# Messages go to stderr: stdout belongs to the answers of a script.
say() {
	printf '%s\n' "$*" >&2
}

die() {
	printf '%s: %s\n' "${0##*/}" "$*" >&2
	exit 1
}

# The caches that may hold Kafka, best first.  What root fetches must be
# readable by the user that the tests step down to, so not in root's home.
kafka_caches() {
	if [ -n "${CARSHOP_CACHE:-}" ]; then
		echo "$CARSHOP_CACHE"
	elif [ "$(id -u)" = 0 ]; then
		echo /var/cache/carshop_outbox
	else
		echo "${XDG_CACHE_HOME:-${HOME:-/nonexistent}/.cache}/carshop_outbox"
		echo /var/cache/carshop_outbox
	fi
}

# Where this version of Kafka is; fails when it has not been fetched.
kafka_home() {
	local cache
	while read -r cache; do
		if [ -r "$cache/kafka-$KAFKA_VERSION/format/meta.properties" ]; then
			echo "$cache/kafka-$KAFKA_VERSION"
			return 0
		fi
	done < <(kafka_caches)
	return 1
}

# until_true SECONDS COMMAND...: runs it until it succeeds or the time is up.
until_true() {
	local deadline=$((SECONDS + $1))
	shift
	until "$@"; do
		[ "$SECONDS" -lt "$deadline" ] || return 1
		sleep 0.05
	done
}

# A zombie (nobody reaps orphans in some containers) has ended too.
process_runs() {
	local stat
	read -r stat 2>/dev/null <"/proc/$1/stat" || return 1
	stat=${stat##*) }
	[ "${stat%% *}" != Z ]
}

process_ended() {
	! process_runs "$1"
}

# The major version of the newest PostgreSQL server that Debian's packages have
# put here; fails when there is none that we support.
postgresql_major() {
	local server major best=0
	for server in /usr/lib/postgresql/*/bin/postgres; do
		[ -x "$server" ] || continue
		major=${server#/usr/lib/postgresql/}
		major=${major%%/*}
		case $major in
		1[5-9]) if [ "$major" -gt "$best" ]; then best=$major; fi ;;
		esac
	done
	[ "$best" != 0 ] || return 1
	echo "$best"
}

# The processes that work in a directory or below it.  Everything a test
# starts inherits such a working directory: servers have their data there.
processes_in() {
	local link
	while read -r link; do
		link=${link%/cwd}
		if process_runs "${link#/proc/}"; then echo "${link#/proc/}"; fi
	done < <(find /proc -maxdepth 2 -path '/proc/[0-9]*/cwd' \
		\( -lname "$1" -o -lname "$1/*" -o -lname "$1 (deleted)" \) 2>/dev/null)
}

no_process_in() {
	[ -z "$(processes_in "$1")" ]
}

# Ends them, politely first: a killed postmaster would leave its shared memory
# behind.  (SIGINT is its fast shutdown, SIGTERM would wait for its clients.)
end_processes_in() {
	local pid
	for pid in $(processes_in "$1"); do
		if [ "$(head -n 1 "/proc/$pid/cwd/postmaster.pid" 2>/dev/null)" = "$pid" ]; then
			kill -s INT "$pid" 2>/dev/null || true
		elif [ ! -e "/proc/$pid/cwd/postmaster.pid" ]; then
			kill -s TERM "$pid" 2>/dev/null || true
		fi
	done
	if until_true 8 no_process_in "$1"; then
		# The number matters: in a trap, a bare return repeats an old status.
		return 0
	fi
	for pid in $(processes_in "$1"); do
		kill -s KILL "$pid" 2>/dev/null || true
	done
	until_true 5 no_process_in "$1" || say "still running: $(processes_in "$1" | tr '\n' ' ')"
}

# The pg_config of the build and of the tests.
choose_pg_config() {
	local major
	if [ -n "${PG_CONFIG:-}" ]; then
		echo "$PG_CONFIG"
	elif major=$(postgresql_major); then
		echo "/usr/lib/postgresql/$major/bin/pg_config"
	else
		echo pg_config
	fi
}
