"""What in a dataset would make a model's figures better than the model: leakage, duplicates, labels that contradict."""

from data_shards.audit.findings import Finding
from data_shards.audit.report import Audit, AuditSettings, audit_listing, audit_shards

__all__ = ["Audit", "AuditSettings", "Finding", "audit_listing", "audit_shards"]
