# carshop_outbox: build, install and test with PGXS.
#
#   make                      build the library against `pg_config`
#   make install              install it there (the user's act; no test does it)
#   make installcheck         pg_regress and isolation tests on a running server
#   make setup                install the Debian packages, fetch Kafka (root or sudo)
#   make test                 setup, build, and every layer of tests
#   make test-unit | test-regress | test-isolation | test-tap
#   make test-tap TESTS=test/t/001_kafka.pl
#   make demo                 the car shop, live, on a private server and broker
#   make matrix               builds and tests on other releases of Debian (root)
#   make cassert              tests with a PostgreSQL that checks itself (root)
#   make asan                 ... under AddressSanitizer and UBSan (root)
#   make valgrind             ... under memcheck (root)
#   make coverage             ... and which lines of each file they run (root)
#   make package              Debian packages, built and tried in roots (root)
#   make docker-test          container images and compose file, built and tried (root)
#   make dist                 a zip of what is committed, for PGXN
#   make bench                measures latency and throughput
#   make bench-capture        measures what capture costs
#   make bench-memory         measures what memory the relay takes
#   make torture SEEDS=n      many histories of faults (SEED=first)
#   make mutants              breaks each promise, and prints who notices
#   make model                explores the relay's protocol (package: spin)
#   make lint                 layers, versions, layout, cppcheck, shellcheck, perlcritic
#   make indent               lay out the C sources (pg_bsd_indent)
#
# PG_CONFIG selects a PostgreSQL, WERROR=1 makes warnings errors.

EXTENSION = carshop_outbox
MODULE_big = carshop_outbox
PGFILEDESC = "carshop_outbox - transactional outbox to Apache Kafka and back"

# The control file is the one place that knows the version.
EXTVERSION := $(shell sed -n "s/^default_version *= *'\([^']*\)'.*/\1/p" $(EXTENSION).control)

PG_CONFIG ?= pg_config

# `all` is PGXS's first target, but not the first one here.
.DEFAULT_GOAL := all

# These targets install what the build needs, so they must not ask for it.
STANDALONE = setup test test-unit test-regress test-isolation test-tap demo bench bench-capture bench-memory matrix cassert asan valgrind coverage package docker-test dist model torture mutants lint indent help

.PHONY: $(STANDALONE) units benches

ifneq ($(MAKECMDGOALS),)
ifeq ($(filter-out $(STANDALONE),$(MAKECMDGOALS)),)
standalone = yes
endif
endif

setup:
	@test/setup

test:
	@test/run

test-unit test-regress test-isolation test-tap:
	@test/run $(patsubst test-%,%,$@)

demo:
	@demo/run

bench:
	@bench/run

bench-capture:
	@bench/capture

bench-memory:
	@bench/memory

model:
	@test/model/run

torture:
	@test/torture

mutants:
	@test/mutants

matrix:
	@test/matrix

cassert asan valgrind coverage:
	@test/instruments $@

package:
	@test/package

docker-test:
	@test/docker

# For PGXN: what is committed, under the name that META.json says.
dist:
	@mkdir -p build && name=carshop_outbox-$$(sed -n 's/^ *"version": *"\([0-9.]*\)".*/\1/p' META.json | head -n 1) && \
		git archive --format=zip --prefix="$$name/" -o "build/$$name.zip" HEAD && echo "build/$$name.zip"

help:
	@sed -n 's/^#\( \|$$\)//p' Makefile | sed '/^PG_CONFIG/q'

lint:
	@test/setup --lint
	@test/lint

indent:
	@test/setup --lint
	@test/indent

ifndef standalone

# ---- what the build needs, named early ----

needs = $(error $(1). On Debian: apt-get install $(2), or let `make setup` do it)

PGXS := $(shell $(PG_CONFIG) --pgxs 2>/dev/null)
ifeq ($(PGXS),)
$(call needs,"$(PG_CONFIG)" cannot be run: pg_config of PostgreSQL is missing,postgresql-server-dev-NN of your server's version)
endif
PG_MAJOR := $(shell $(PG_CONFIG) --version | sed 's/^[^0-9]*\([0-9]*\).*/\1/')
ifneq ($(shell test "$(PG_MAJOR)" -ge 15 && test "$(PG_MAJOR)" -le 19 && echo yes),yes)
$(error carshop_outbox supports PostgreSQL 15 to 19, but $(PG_CONFIG) is of version $(PG_MAJOR); choose another with PG_CONFIG=/path/to/pg_config)
endif
# Debian's client package brings PGXS without the headers.
ifneq ($(words $(wildcard $(PGXS) $(shell $(PG_CONFIG) --includedir-server)/postgres.h)),2)
$(call needs,$(PGXS) or the server's headers are missing,postgresql-server-dev-$(PG_MAJOR))
endif

PKG_CONFIG ?= pkg-config
ifeq ($(shell command -v $(PKG_CONFIG)),)
$(call needs,pkg-config is missing,pkg-config)
endif
ifneq ($(shell $(PKG_CONFIG) --exists 'rdkafka >= 2.0' && echo yes),yes)
$(call needs,librdkafka 2.0 or newer is missing,librdkafka-dev)
endif
ifneq ($(shell $(PKG_CONFIG) --exists json-c && echo yes),yes)
$(call needs,json-c is missing,libjson-c-dev)
endif

# ---- sources and flags ----

SOURCES := $(sort $(wildcard src/*.c src/*/*.c))
OBJS = $(SOURCES:.c=.o)

# The script of CREATE EXTENSION is joined from its parts, in this order.
# Scripts of ALTER EXTENSION UPDATE are in the tree as they are.
SQL_PARTS = sql/outbox.sql sql/repair.sql sql/park.sql sql/report.sql sql/report_mirror.sql sql/report_select.sql sql/topics.sql sql/status.sql sql/report_status.sql sql/check.sql sql/metrics.sql sql/car_shop.sql sql/guard.sql
DATA_built = sql/$(EXTENSION)--$(EXTVERSION).sql
DATA = $(sort $(wildcard sql/$(EXTENSION)--*--*.sql))

LIBS_CFLAGS := $(shell $(PKG_CONFIG) --cflags rdkafka json-c)
LIBS_LINK := $(shell $(PKG_CONFIG) --libs rdkafka json-c)

# Callbacks and fcinfo leave parameters unused by design, and comparing an int
# with lengthof() is PostgreSQL's own idiom.
WARNINGS = -Wall -Wextra -Wno-unused-parameter -Wno-sign-compare
ifdef WERROR
WARNINGS += -Werror
endif

# PostgreSQL's headers are not clean under -Wextra: as system headers they are
# not ours to mend.  -MMD because PGXS tracks no headers on Debian; it stands
# in CFLAGS, which bitcode does not get, so nothing overwrites the .d files.
PG_CPPFLAGS = -DCARSHOP_OUTBOX_VERSION='"$(EXTVERSION)"' -I$(srcdir)/src -isystem $(shell $(PG_CONFIG) --includedir-server) $(LIBS_CFLAGS)
PG_CFLAGS = $(WARNINGS) -MMD -MP
# src/invariant.h: an assert-enabled PostgreSQL checks ours, too.
ifneq ($(findstring --enable-cassert,$(shell $(PG_CONFIG) --configure)),)
PG_CPPFLAGS += -DCHECK_INVARIANTS
endif
# -Bsymbolic: our own names win over those of other loaded libraries.
SHLIB_LINK = $(LIBS_LINK) -lpthread -Wl,-Bsymbolic

# No bitcode: nothing of ours is worth inlining into a query, and it would
# need the very clang that PostgreSQL was built with.
override with_llvm := no

# ---- pg_regress: test/sql and test/isolation/specs against expected/ ----

REGRESS := $(shell sed -n 's/^test: *//p' test/schedule 2>/dev/null)
REGRESS_OPTS = --inputdir=test
ISOLATION := $(shell sed -n 's/^test: *//p' test/isolation/schedule 2>/dev/null)
ISOLATION_OPTS = --inputdir=test/isolation --outputdir=. --load-extension=carshop_outbox

DEPS = $(SOURCES:.c=.d)
EXTRA_CLEAN = $(DEPS) $(wildcard sql/*.part) src/.flags build tmp_check output_iso

include $(PGXS)

# Objects of other flags or of another PostgreSQL are made anew.
flags = $(PG_MAJOR) $(CC) $(CFLAGS) $(CPPFLAGS)
$(shell mkdir -p src && echo '$(subst ','\'',$(flags))' | cmp -s - src/.flags || echo '$(subst ','\'',$(flags))' > src/.flags)
$(OBJS): src/.flags

-include $(DEPS)

$(DATA_built): $(SQL_PARTS)
	cat $^ >$@.part
	mv $@.part $@

# ---- unit tests: plain C, without PostgreSQL's headers ----

# Every source in a folder of src that does not include postgres.h must compile
# and link without the server: that is what keeps kafka/, the relay's state
# machine and the decoding of messages free of it.
PLAIN := $(shell grep -L 'include "postgres.h"' $(sort $(wildcard src/*/*.c)) /dev/null | grep -v /dev/null)
PLAIN_OBJS = $(PLAIN:src/%.c=build/unit/%.o)
# smoke_*.c are linked the same way, but want a broker: test/t runs them.
UNITS = $(patsubst test/unit/%.c,build/unit/%,$(sort $(wildcard test/unit/test_*.c test/unit/smoke_*.c)))
UNIT_FLAGS = -std=gnu11 -O1 -g $(WARNINGS) -MMD -MP -fsanitize=address,undefined -fno-sanitize-recover=undefined \
	-DCHECK_INVARIANTS -Isrc -Itest/unit $(LIBS_CFLAGS) $(COPT)

units: $(UNITS)

build/unit/%.o: src/%.c src/.flags
	@mkdir -p $(@D)
	$(CC) $(UNIT_FLAGS) -c -o $@ $<

$(UNITS): build/unit/%: test/unit/%.c $(PLAIN_OBJS)
	@mkdir -p $(@D)
	$(CC) $(UNIT_FLAGS) -o $@ $< $(PLAIN_OBJS) $(LIBS_LINK) -lpthread -lm

-include $(PLAIN_OBJS:.o=.d) $(UNITS:=.d)

# ---- what demo and benchmarks drive and measure with ----

benches:
	$(MAKE) -C bench OUT=../build/bench PG_CONFIG=$(PG_CONFIG)

endif
