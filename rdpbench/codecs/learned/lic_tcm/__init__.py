"""lic_tcm."""
