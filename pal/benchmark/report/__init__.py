"""The benchmark's page: results, analyses, α, human evaluation and case studies.

pal report report.include='[runs/results.json, runs/cases.json]' output=runs/report.html
"""
