"""How fast calls may be sent: the adaptive rate limiter. Pure; time is handed in."""
