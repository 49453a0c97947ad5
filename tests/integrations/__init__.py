"""Tests of hypvl.integrations."""
