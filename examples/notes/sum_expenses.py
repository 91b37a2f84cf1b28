"""Sum an expenses file by month.

    python sum_expenses.py expenses.csv

The file has a header line and the columns date (2024-03-14), category and amount.
"""

import csv
import sys
from collections import defaultdict
from collections.abc import Iterable
from datetime import date
from decimal import Decimal, InvalidOperation
from pathlib import Path


def read_expenses(path: Path) -> Iterable[tuple[date, Decimal]]:
    """Yield the date and the amount of each row; name the line of a bad one."""
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        for row in reader:
            try:
                yield date.fromisoformat(row["date"]), Decimal(row["amount"])
            except (KeyError, TypeError, ValueError, InvalidOperation) as error:
                raise SystemExit(f"{path}, line {reader.line_num}: cannot read {row}") from error


def sum_by_month(expenses: Iterable[tuple[date, Decimal]]) -> dict[str, Decimal]:
    """Add up the amounts of each month, in the order of the calendar."""
    totals: defaultdict[str, Decimal] = defaultdict(Decimal)
    for day, amount in expenses:
        totals[f"{day:%Y-%m}"] += amount
    return dict(sorted(totals.items()))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python sum_expenses.py expenses.csv")
    for month, total in sum_by_month(read_expenses(Path(sys.argv[1]))).items():
        print(f"{month}  {total:>12.2f}")
