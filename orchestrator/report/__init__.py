"""The report: one self-contained HTML page of a sweep. Data in (`ReportData`), text out (`render`); reads no store."""

from orchestrator.report.data import DesignHealth, ReportData
from orchestrator.report.html import render

__all__ = ["DesignHealth", "ReportData", "render"]
