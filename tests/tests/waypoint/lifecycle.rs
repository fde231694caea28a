//! Waypoints that come, go, and fail.
