/*-------------------------------------------------------------------------
 *
 * virtual.c
 *	  Values of virtual generated columns (PostgreSQL 18 on).
 *
 * Copyright (c) 2026, carshop_outbox contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "capture/virtual.h"
#include "compat.h"
#include "executor/executor.h"
#include "mutants.h"
#include "optimizer/optimizer.h"
#include "utils/rel.h"

typedef struct VirtualColumn
{
	AttrNumber	attno;
	ExprState  *value;
} VirtualColumn;

struct VirtualColumns
{
	int			n;
	VirtualColumn column[FLEXIBLE_ARRAY_MEMBER];
};

VirtualColumns *
virtual_columns(Relation rel, const Bitmapset *wanted)
{
	TupleDesc	desc = RelationGetDescr(rel);
	VirtualColumns *columns = NULL;

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);
		VirtualColumn *column;

		if (att->attisdropped || !compat_is_virtual(att) ||
			!bms_is_member(att->attnum, wanted) || MUTANT("virtual_null"))
			continue;
		if (columns == NULL)
			columns = palloc0(offsetof(VirtualColumns, column) +
							  sizeof(VirtualColumn) * desc->natts);
		column = &columns->column[columns->n++];
		column->attno = att->attnum;
		column->value =
			ExecInitExpr(expression_planner((Expr *) compat_virtual_expression(rel, att->attnum)),
						 NULL);
	}
	return columns;
}

void
virtual_compute(VirtualColumns *columns, TupleDesc desc, Datum *values,
				bool *isnull)
{
	ExprContext *context;
	TupleTableSlot *slot;

	if (columns == NULL)
		return;
	context = CreateStandaloneExprContext();
	slot = MakeSingleTupleTableSlot(desc, &TTSOpsVirtual);
	memcpy(slot->tts_values, values, sizeof(Datum) * desc->natts);
	memcpy(slot->tts_isnull, isnull, sizeof(bool) * desc->natts);
	ExecStoreVirtualTuple(slot);
	context->ecxt_scantuple = slot;
	for (int i = 0; i < columns->n; i++)
	{
		AttrNumber	attno = columns->column[i].attno;

		/* not switched to the context's own memory, which goes with it */
		values[attno - 1] = ExecEvalExpr(columns->column[i].value, context,
										 &isnull[attno - 1]);
	}
	FreeExprContext(context, true);
	ExecDropSingleTupleTableSlot(slot);
}
