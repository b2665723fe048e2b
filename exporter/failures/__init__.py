"""The last processes that ended badly, one by one: kept, filtered, shown and logged."""
