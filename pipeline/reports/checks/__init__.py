"""Clip checks: a gate for defects and a key to sort by, never a verdict on beauty."""

from pipeline.reports.checks.check import Subject, check_clip
from pipeline.reports.checks.findings import ClipCheck, Grade, Kind

__all__ = ["ClipCheck", "Grade", "Kind", "Subject", "check_clip"]
