"""A bill as a page a customer could be sent: one self-contained HTML file, usage plot included."""

from __future__ import annotations

import base64
from typing import Any

from meter_pipeline.billing import plots
from meter_pipeline.billing.bill_text import bill_text
from meter_pipeline.page_formats import PageFormats

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Statement {{ bill.statement_id }}</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<style>
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 46rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.4rem } h2 { font-size: 1.05rem; margin-top: 2rem } .total { font-size: 1.6rem; font-weight: 600; margin: .5rem 0 }
table { border-collapse: collapse; width: 100%; margin: .6rem 0 } th, td { padding: .3rem .4rem; text-align: left; border-bottom: 1px solid #ddd }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums } small, .small { color: #555; font-size: .8rem } img { max-width: 100% }
.message { border-left: 3px solid #35618f; padding-left: .7rem } tr.sum td { font-weight: 600; border-bottom: 0 }
@media print { body { margin: 0 } h2 { break-after: avoid } table { break-inside: avoid } }
</style></head><body>
<h1>{{ bill.utility }}</h1>
<p>Account {{ bill.account_id }}{% for address in addresses %}<br>{{ address }}{% endfor %}<br>
{{ bill.period_first }} to {{ bill.period_last }}, {{ bill.days }} days{% if bill.kind != "regular" %} ({{ bill.kind.replace("_", " ") }} bill){% endif %}</p>
<p class="total">{{ bill.total }} {{ bill.currency }}</p>
<p>Issued {{ bill.issued_on }}. Please pay by <strong>{{ bill.due_on }}</strong>.</p>
{% for text in bill.messages %}<p class="message">{{ text }}</p>
{% endfor %}
{% for service in bill.services %}
<h2>{{ service.commodity.capitalize() or "Service" }}{% if service.address %}, {{ service.address }}{% endif %}</h2>
{% if service.reads %}<table><thead><tr><th>Meter</th><th>Previous read</th><th>Present read</th>
<th class="n">Multiplier</th><th class="n">Difference</th></tr></thead><tbody>
{% for read in service.reads %}<tr><td>{{ read.meter_id }}</td>
<td>{% if read.previous %}{{ read.previous.dial }}<br><small>{{ read.previous.on }}{% if read.previous.estimated %}, estimated{% endif %}</small>{% endif %}</td>
<td>{% if read.present %}{{ read.present.dial }}<br><small>{{ read.present.on }}{% if read.present.estimated %}, estimated{% endif %}</small>{% endif %}</td>
<td class="n">{{ read.multiplier }}</td><td class="n">{% if read.difference %}{{ read.difference }} {{ read.unit }}{% endif %}</td></tr>
{% endfor %}</tbody></table>{% endif %}
<table><thead><tr><th>Charge</th><th class="n">Quantity</th><th class="n">Rate</th><th class="n">Amount</th></tr></thead><tbody>
{% for line in service.lines %}<tr><td>{{ line.name }}</td>
<td class="n">{% if line.quantity %}{{ line.quantity }} {{ line.unit }}{% endif %}</td><td class="n">{{ line.rate or "" }}</td><td class="n">{{ line.amount }}</td></tr>
{% endfor %}</tbody></table>
<p>{{ service.quantity }} {{ service.unit }} in {{ service.days }} days, {{ service.per_day }} a day. {{ service.made_from }}
{% for words, then in (("The period before", service.comparison.last_period), ("A year before", service.comparison.last_year)) if then %}
<br>{{ words }}: {{ then.quantity }} {{ service.unit }} in {{ then.days }} days, {{ then.per_day }} a day.
{% endfor %}</p>
{% if service.plot %}<p><img alt="Usage by day, {{ service.quantity }} {{ service.unit }}" src="data:image/png;base64,{{ service.plot }}"></p>{% endif %}
{% endfor %}
{% if bill.pay_to %}<p>Pay to: {{ bill.pay_to | join(", ") }}</p>{% endif %}
{% if bill.contact %}<p>{{ bill.contact }}</p>{% endif %}
<p class="small">Statement {{ bill.statement_id }}; service{{ "s" if bill.services | length > 1 }} {{ bill.services | map(attribute="service_point_id") | join(", ") }}.
Each line can be traced to the meter reads behind it: statement and line number.</p>
</body></html>
"""


def bill_page(bill: dict[str, Any], shown: PageFormats) -> str:
    """The HTML page of a bill (``bill_documents``), its dates and figures as the locale writes them."""
    from jinja2 import Environment

    written = bill_text(bill, shown)
    services = [service | {"plot": _plot(service, shown)} for service in written["services"]]
    addresses = dict.fromkeys(service["address"] for service in services if service["address"])
    page = Environment(autoescape=True).from_string(_PAGE)
    return page.render(bill=written | {"services": services}, addresses=list(addresses))


def _plot(service: dict[str, Any], shown: PageFormats) -> str:
    """The daily usage as a PNG in base64; empty where there is none."""
    daily = service["daily"]
    if not daily:
        return ""
    names = [str(d["day"].day) if k else shown.short_day(d["day"]) for k, d in enumerate(daily)]
    quantities = [float(d["quantity"]) for d in daily]
    return base64.b64encode(plots.daily_usage(names, quantities, service["unit"])).decode()
