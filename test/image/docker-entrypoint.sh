#!/bin/bash
# docker-entrypoint.sh - does what the documentation of the official image says of its
# own: a new cluster with a password and a database, the files of
# /docker-entrypoint-initdb.d on a server that listens on its socket only but has the
# arguments of the command, then the command, as the user postgres.
set -Eeuo pipefail

if [ "$1" != postgres ]; then
	exec "$@"
fi
if [ "$(id -u)" = 0 ]; then
	mkdir -p "$PGDATA"
	chmod 700 "$PGDATA"
	chown -R postgres "$PGDATA" /var/run/postgresql
	exec gosu postgres "$0" "$@"
fi
if [ ! -s "$PGDATA/PG_VERSION" ]; then
	initdb --username=postgres --pwfile=<(echo "${POSTGRES_PASSWORD:?}")
	echo "host all all all $(postgres -C password_encryption "${@:2}")" >>"$PGDATA/pg_hba.conf"
	pg_ctl -D "$PGDATA" -o "$(printf '%q ' "${@:2}" -c listen_addresses='' -p "${PGPORT:-5432}")" -w start
	run_sql() { psql -v ON_ERROR_STOP=1 --no-password --no-psqlrc --username postgres "$@"; }
	if [ "${POSTGRES_DB:=postgres}" != postgres ]; then
		run_sql --dbname postgres --set db="$POSTGRES_DB" <<<'CREATE DATABASE :"db";'
	fi
	for file in /docker-entrypoint-initdb.d/*.sql; do
		[ ! -e "$file" ] || run_sql --dbname "$POSTGRES_DB" -f "$file"
	done
	pg_ctl -D "$PGDATA" -m fast -w stop
fi
exec "$@"
