"""Inventory: what stands at each vendor account against what KeyGate knows. Inside this area only."""
