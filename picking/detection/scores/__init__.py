"""A micrograph scored place by place, and the picks that follow from it."""
