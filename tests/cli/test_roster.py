"""The list of a bulk order: whatever does not fit its header is refused by its line, and nothing is guessed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keygate.cli.roster import COLUMNS, MAX_LINES, NotARoster, people
from keygate.issued_keys.bulk.schemas import BulkIn, RowIn


def mistakes(data: bytes | str) -> str:
    with pytest.raises(NotARoster) as refused:
        people(data.encode() if isinstance(data, str) else data)
    return "\n".join(refused.value.mistakes)


def test_every_column_is_read() -> None:
    header = "Developer, NAME,budget,rpm,tpm,models,expires"
    [one, two] = people(f'\ufeff{header}\r\na@example.com,Ada,12.50,30,4000,"m-1, m-2 m-3",12w\r\ndev_1,,,,,,\r\n,,,,,,\r\n'.encode())
    assert (one.number, one.developer, two.number, two.developer) == (2, "a@example.com", 3, "dev_1")
    assert one.body == {
        "name": "Ada",
        "budget_usd": "12.50",
        "rate_limit_rpm": 30,
        "rate_limit_tpm": 4000,
        "models": ["m-1", "m-2", "m-3"],
        "expires_in_days": 84,
    }
    assert two.body == {}


def test_lines_are_counted_as_an_editor_counts_them() -> None:
    text = 'developer,budget\n\n\n"a\nb",1\n\nc@example.com,$5\n'
    assert mistakes(text) == (
        "line 4: developer: write an id, an e-mail address or a name\n"
        "line 7: budget: write dollars such as 1000.00, without a sign and without a comma"
    )
    assert [line.number for line in people(b"developer\r\ra@example.com\rb@example.com")] == [3, 4]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("developer,budget\na@x.com,5\nb@x.com,1,000\n", "line 3: 3 cells, and the header has 2; put quotes"),
        ("developer,budget,rpm\na@x.com\n", "line 2: 1 cells, and the header has 3; a cell may be empty"),
        ('developer,budget\na@x.com,"1,000"\n', "line 2: budget: write dollars"),
        ("developer,budget\na@x.com,-5\n", "line 2: budget: write dollars"),
        ("developer,budget\na@x.com,1_000\n", "line 2: budget: write dollars"),
        ("developer,budget\na@x.com,999999999999\n", "line 2: budget: must be at most"),
        ("developer,budget,budget\na@x.com,1,500\n", "line 1: the column budget stands there twice"),
        ("developer,email\n", "line 1: there is no column 'email'"),
        ("developer,,rpm\n", "line 1: column 2 has no name"),
        ("developer;budget\n", "line 1: columns are separated by commas"),
        ("name\nx\n", "line 1: no column is called developer"),
        ("", "the file is empty"),
        ("developer,rpm\n,30\n", "line 2: no developer"),
        ("developer,rpm\na@x.com,0\n", "line 2: rpm: write a whole number"),
        ("developer,rpm\na@x.com,٣٠\n", "line 2: rpm: write a whole number"),
        ("developer,tpm\na@x.com,99999999999999999999\n", "line 2: tpm: write a whole number"),
        ("developer,expires\na@x.com,0d\n", "line 2: expires: write 1 to 3650 days"),
        ("developer,expires\na@x.com,soon\n", "line 2: expires: write a number of days or weeks"),
        ('developer,models\na@x.com,","\n', "line 2: models: write the vendor's model ids"),
        ("developer,models\na@x.com,größe\n", "line 2: models: write the vendor's model ids"),
        ('developer,name\na@x.com,"two\nlines"\n', "line 2: name: write one line"),
        ("developer,name\na@x.com," + "x" * 200_000 + "\n", "line 2: this can't be read as CSV: field larger"),
        ('developer,name\na@x.com,"open\n', "line 2: this can't be read as CSV"),
        ("developer\n" + "a@x.com\n" * (MAX_LINES + 1), "more than 5000 lines"),
        ("developer,name\nb@x.com,Ada\na@x.com,Jos\u00e9\n".encode("latin-1"), "line 3: this is not UTF-8; save it as UTF-8"),
        ("developer\na@x.com\n".encode("utf-16"), "this is UTF-16"),
        ("developer\na@x.com\n".encode("utf-16-le"), "this is UTF-16"),
    ],
)
def test_what_does_not_fit_is_refused_by_its_line(text: bytes | str, said: str) -> None:
    assert said in mistakes(text)


def test_every_mistake_is_told_at_once() -> None:
    assert mistakes("developer,rpm\na@x.com,x\nb@x.com,1\nc@x.com,y\n").count("whole number") == 2


ODD = st.text(max_size=12) | st.text("0123456789.dw ,-_eE", max_size=12)


@given(st.sampled_from(COLUMNS[1:]), ODD, st.just("a@example.com") | st.text(min_size=1, max_size=12))
def test_what_is_read_the_api_takes(column: str, text: str, developer: str) -> None:
    cells = ",".join('"' + each.replace('"', '""') + '"' for each in (developer, text))
    try:
        lines = people(f"developer,{column}\n{cells}\n".encode())
    except NotARoster:
        return
    for line in lines:
        who = {"developer_id": line.developer} if line.developer.startswith("dev_") else {"email": line.developer}
        BulkIn(vendor="openai", rows=[RowIn(line=line.number, **who, **line.body)]).draft(1)
