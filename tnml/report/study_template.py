"""The page of a study without its data: text, looks, and the order of its parts."""

STYLE = """
:root { --ink: #1d2430; --soft: #5b6472; --line: #d8dde4; --train: #0072b2; --test: #d55e00; }
* { box-sizing: border-box; }
[hidden] { display: none !important; }
body { margin: 0; color: var(--ink); background: #fff;
  font: 16px/1.55 system-ui, "Liberation Sans", "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1000px; margin: 0 auto; padding: 28px 24px 60px; }
h1 { font-size: 28px; line-height: 1.25; margin: 0 0 8px; }
h2 { font-size: 20px; margin: 38px 0 4px; padding-top: 14px; border-top: 1px solid var(--line); }
#part-error h2 { border-top: 0; margin-top: 6px; }
p { margin: 6px 0; }
.soft, .note { color: var(--soft); }
.note { font-size: 14.5px; }
.lead { max-width: 860px; }
.warn { background: #fff4e5; border-left: 4px solid #e69f00; padding: 6px 12px; margin: 10px 0; }
.bar { position: sticky; top: 0; z-index: 5; background: #fffffff5; border-bottom: 1px solid var(--line);
  padding: 10px 0; margin-top: 18px; display: flex; flex-wrap: wrap; gap: 8px 20px; align-items: center; }
.bar label { font-size: 15px; }
select { font: inherit; padding: 3px 6px; border: 1px solid #9aa4b2; border-radius: 4px; background: #fff;
  color: var(--ink); margin-left: 4px; }
.plot { width: 100%; }
.table { max-height: 520px; overflow: auto; border: 1px solid var(--line); margin-top: 8px; }
table { border-collapse: collapse; font-size: 13.5px; font-variant-numeric: tabular-nums; width: 100%; }
th, td { padding: 4px 10px; text-align: right; white-space: nowrap; border-bottom: 1px solid #edf0f4; }
th { position: sticky; top: 0; background: #f3f5f8; border-bottom: 1px solid #9aa4b2; }
th button { all: unset; cursor: pointer; font-weight: 600; }
th button:focus-visible { outline: 2px solid var(--train); }
td.word, th.word { text-align: left; }
tr.chosen td { background: #fdf0e6; }
pre { background: #f3f5f8; padding: 12px 14px; overflow: auto; font-size: 13.5px; line-height: 1.45;
  max-height: 420px; }
@media print { .bar { position: static; } .table, pre { max-height: none; } }
"""

BODY = """
<main>
<h1 id="title"></h1>
<p class="lead" id="about"></p>
<p class="lead">Models of different bond dimension are trained on the same samples. A larger bond dimension
gives a matrix product state more parameters. This page shows how far that lowers the error on samples it has
not seen (<b style="color:var(--test)">test error</b>), and where the model only follows the noise of those it
was trained on (<b style="color:var(--train)">train error</b>).</p>
<p class="lead">A line joins the medians over the seeds; the band around it reaches from the smallest to the
largest seed.</p>
<p class="soft" id="facts"></p>
<div class="warn" id="warning" hidden></div>
<div class="bar" id="controls"></div>
<section id="part-error"><h2>Error against bond dimension</h2><p id="reading"></p>
<div class="plot" id="error"></div><p class="note" id="error-note"></p></section>
<section id="part-curves"><h2>Learning curves</h2><p class="note" id="curves-note"></p>
<div class="plot" id="curves"></div></section>
<section id="part-gap"><h2>Gap between test and train error</h2>
<p class="note">Test error less train error of each run. Close to zero the axis is linear, further out
logarithmic.</p><div class="plot" id="gap"></div></section>
<section id="part-heat-n_train"><h2>Test error by bond dimension and number of training samples</h2>
<p class="note">Medians over the seeds. The frame marks the smallest of each row; empty cells were not run.
A click on a cell shows its runs.</p>
<div class="plot" id="heat-n_train"></div></section>
<section id="part-heat-noise"><h2>Test error by bond dimension and noise</h2>
<p class="note">Medians over the seeds. The frame marks the smallest of each row; empty cells were not run.
A click on a cell shows its runs.</p>
<div class="plot" id="heat-noise"></div></section>
<section id="part-extra"><h2>Other measures of the trained models</h2><div id="extra"></div></section>
<section id="part-table"><h2>All runs</h2>
<p class="note">A click on a heading sorts; the runs that were clicked on are shaded.</p>
<div class="table"><table id="table"></table></div></section>
<section id="part-options"><h2>Options and commands</h2>
<p class="note">To run the study again, and to make this page from what is stored:</p>
<pre id="commands"></pre><p class="note">Its settings, as stored:</p>
<pre id="settings"></pre><div id="failed"></div></section>
</main>
<noscript><p>This page draws its figures with JavaScript, which is switched off.</p></noscript>
"""

# No address at all may be loaded: the page works without a network and tells nobody that it is read.
POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"


def page(title: str, data: str, plotly: str, script: str) -> str:
    """One HTML file of the parts.

    Args:
        title: plain text, escaped for HTML.
        data: JSON without `<`.
        plotly: the source of plotly.js.
        script: what draws.

    Example:
        >>> page("mine", "{}", "", "").splitlines()[:2]
        ['<!DOCTYPE html>', '<html lang="en">']
    """
    head = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
    )
    stored = f'<script type="application/json" id="data">{data}</script>\n'
    return f"{head}{BODY}{stored}<script>{plotly}</script>\n<script>{script}</script>\n</body>\n</html>\n"
