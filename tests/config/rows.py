"""Look-ups in a plan as tests need them."""


def row_of(plan, experiment, label):
    return next(row for row in plan.rows[experiment] if row.label == label)
