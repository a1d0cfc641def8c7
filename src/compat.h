/*-------------------------------------------------------------------------
 *
 * compat.h
 *	  The only place that knows versions of PostgreSQL and librdkafka.
 *
 * Each shim has the shape of the newest version's interface and names the
 * release that changed it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef COMPAT_H
#define COMPAT_H

#ifdef PG_VERSION_NUM

#if PG_VERSION_NUM < 150000 || PG_VERSION_NUM >= 190000
#error "carshop_outbox supports PostgreSQL 15 to 18"
#endif

#define PG16_GE (PG_VERSION_NUM >= 160000)
#define PG17_GE (PG_VERSION_NUM >= 170000)
#define PG18_GE (PG_VERSION_NUM >= 180000)

#endif							/* PG_VERSION_NUM */

#endif							/* COMPAT_H */
