//! Pure planner: apps, nodes and observations in, assignments with reasons out; and a checker of finished plans.
