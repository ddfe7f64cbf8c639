"""Vendors' bills: imported late and restated as they come, attributed to issued keys, watched, and held against our ledger."""

from keygate.vendor_spend.importer import SpendImporter
from keygate.vendor_spend.reconciliation import BillReconciliation
from keygate.vendor_spend.reports import VendorUsageReports
from keygate.vendor_spend.watching import BudgetWatch

__all__ = ["BillReconciliation", "BudgetWatch", "SpendImporter", "VendorUsageReports"]
