"""Any row name, label, caption, claim and source reaches table, CSV, figure and page as it is, or is not planned."""

import io
from collections import Counter
from html.parser import HTMLParser

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from matplotlib import rc_context
from project import PROJECT
from tidy import write_scores

from issl.config.display import figure_of, word
from issl.config.plan import plans
from issl.config.presets import read_config
from issl.errors import UserError
from issl.report import figures, tables
from issl.report.html import html
from issl.report.page import page
from issl.report.reproduction import Request, compare
from issl.report.results import aggregate, read_results

RAW = read_config(PROJECT / "config.yaml")
# Words that CSV, YAML, Markdown, HTML, LaTeX, mathtext or a terminal could take for something else.
MEANT = [
    *("None", "NA", "nan", "null", "", " ", "007", "1e3", "1.0", "1", "-0", "True", "inf", "2024_01", "a,b", 'a"b'),
    *(
        "|",
        "a | b",
        "*a*",
        "_a_",
        "`a`",
        "<b>",
        "&amp;",
        "&lt;",
        "# a",
        "1. a",
        "- a",
        "[a](b)",
        "![a](b)",
        "\\",
        "\\*",
    ),
    *(
        "$a$",
        "$\\frac$",
        "a $ b",
        "%",
        "~",
        "^",
        "{}",
        "{a}",
        "--",
        "'",
        "=1+1",
        "@a",
        "+ dim.",
        "https://a.b",
        "~~a~~",
    ),
    *(
        "a\tb",
        "a\nb",
        "a  b",
        "a b",
        "a ",
        "a\r",
        "a\0b",
        "\u200b",
        "\ud800",
        "\ufeff",
        "\u00a0",
        "\u202ea",
        "\x1b[31m",
    ),
    *("\u00e9", "e\u0301", "\u6f22\u5b57", "\U0001f642", "a" * 60, "svm", "untrained", "published", "x, y"),
]
NAMES = ("a", "b", "method", "other", "probe", "claim", "source", "caption", "also", "title")
WORDS = st.one_of(st.sampled_from(MEANT), st.text(st.characters(exclude_categories=["Cc", "Cf", "Cs"]), max_size=12))
CHANGES = st.dictionaries(st.sampled_from(NAMES), st.one_of(WORDS, WORDS, st.text(max_size=9)), min_size=1, max_size=5)


def config(words):
    """Two rows and two probes in a table, and the two methods as lines of a figure."""
    methods = {"simclr": RAW["methods"]["simclr"], "cissl": RAW["methods"]["cissl"]}
    also = {"label": words["also"], "source": words["source"], "precision": 0.1}
    published = {"source": words["source"], "precision": 0.1}
    for each in (also, published):
        each["values"] = {words["a"]: {words["probe"]: 50.0}, words["b"]: {words["probe"]: 40.0}}
    table = {
        "rows": {words["a"]: {"method": "simclr"}, words["b"]: {"method": "cissl"}},
        "probes": [{"label": words["probe"]}, {"kind": "svm"}],
        "table": {"caption": words["caption"], "columns": ["probe"]},
        "published": published | {"also": [also]},
        "claims": {words["claim"]: {"better": words["a"], "than": words["b"]}},
    }
    figure = {
        "grid": {"method": ["simclr", "cissl"], "optim.epochs": [100, 200]},
        "probes": [{}],
        "figure": {
            **{"kind": "lines", "x": "epochs", "hue": "method", "caption": words["caption"]},
            **{"xlabel": "x", "legend_title": words["title"], "reference": [words["other"]]},
        },
    }
    labels = {"simclr": words["method"], "cissl": words["other"]}
    return {
        "data": RAW["data"],
        "defaults": RAW["defaults"],
        "methods": {name: method | {"label": labels[name]} for name, method in methods.items()},
        "experiments": {"table": table, "figure": figure},
    }


class Text(HTMLParser):
    """The text of a page, and the text of each cell of its tables."""

    def __init__(self, content):
        super().__init__()
        self.text, self.cells = "", []
        self.feed(content)

    def handle_starttag(self, tag, attrs):
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_data(self, data):
        self.text += data
        if self.cells:
            self.cells[-1] += data


def shown(text):
    """A text without its spaces, where lines may be broken."""
    return "".join(text.split())


def check(words, folder):
    """Whether it was planned, after following the words through all that is made of them."""
    assume(words["a"] != words["b"])  # one key
    try:
        plan = plans(config(words))["results"]
    except UserError as error:
        assert str(error).isprintable()
        return False
    request = Request.model_validate_json(plan.comparison())
    results = {}
    for name in ("table", "figure"):
        rows, files = plan.rows_for(name), []
        for nth, row in enumerate(rows):
            path = folder / f"{name}{nth}.csv"
            kind = {"kind": "svm"} if row["probe"] == "svm" else {}
            path.unlink(missing_ok=True)
            files.append(write_scores(path, ("s", 0.5 + nth / 100, 0.4), **kind))
        history = folder / "history.csv"
        history.write_text("epoch,test_log_loss\n1,2.5\n")
        aggregate(rows, files, [history] * len(rows)).to_csv(folder / f"{name}.csv", index=False)
        results[name] = read_results(folder / f"{name}.csv")
        for column in ("row", "method", "probe"):
            assert results[name][column].tolist() == [row[column] for row in rows]
    experiment = request.experiments["table"]
    cells = tables.grid(results["table"], experiment.table, experiment.published)
    text = tables.markdown(cells, plan.caption("table"))
    made = Text(html(text, words["a"]))
    first = [shown(cell) for cell in made.cells[:: len(cells.header)]]
    assert first == ["", *(shown(word(words[name])) for name in "ab")] and len(set(first)) == 3
    assert shown(plan.caption("table")) in shown(made.text)
    assert tables.latex(cells, plan.caption("table")).count(r"\\") >= 3

    with rc_context({"svg.fonttype": "none"}):
        figure = figures.draw(results["figure"], figure_of(plan.display("figure")))
        figure.savefig(target := io.StringIO(), format="svg")
    drawn = shown(Text(target.getvalue()).text)
    assert shown(words["method"]) in drawn and shown(words["other"]) in drawn

    report = compare(request, results, [], [])
    seen = shown(Text(html(page(report), "page")).text)
    for name in ("a", "b", "claim", "source", "also", "probe"):
        assert shown(word(words[name])) in seen, name
    return True


def fuzz(folder, examples):
    """How many of the drawn words were shown everywhere (True), and how many refused."""
    outcomes = Counter()

    @settings(max_examples=examples, derandomize=True, deadline=None, database=None, suppress_health_check=HealthCheck)
    @given(CHANGES)
    def follow(changes):
        outcomes[check({name: f"the {name}" for name in NAMES} | changes, folder)] += 1

    follow()
    return outcomes


@pytest.mark.filterwarnings("ignore")
def test_any_words_are_shown_as_they_are_or_not_planned(tmp_path):
    outcomes = fuzz(tmp_path, 25)
    assert min(outcomes.values()) > 3, outcomes


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_many_words_are_shown_as_they_are_or_not_planned(tmp_path):
    outcomes = fuzz(tmp_path, 1000)
    assert min(outcomes.values()) > 200, outcomes
