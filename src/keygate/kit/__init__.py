"""Tools that know no domain: clock, ids, money, secrets, the database, HTTP. Import the modules, not this package."""
