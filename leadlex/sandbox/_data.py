"""The invented workspace. Every person, firm and sum in these tables is made up."""

# The people that a prospect search can find, and the firms they work for.
PEOPLE = """
name                | title           | company                      | industry | city          | state | employees
Ada Okafor          | CEO             | Okafor & Lindqvist LLP       | law      | New York      | NY    | 64
Bruno Castellanos   | CEO             | Castellanos Reyes PLLC       | law      | New York      | NY    | 41
Clara Whitcomb      | CEO             | Whitcomb Dale LLP            | law      | New York      | NY    | 120
Desmond Achterberg  | CEO             | Achterberg Law Group         | law      | New York      | NY    | 18
Elif Demirci        | CEO             | Demirci & Sons LLP           | law      | New York      | NY    | 27
Felix Montague      | CEO             | Montague Pryce LLP           | law      | New York      | NY    | 310
Greta Halvorsen     | CEO             | Halvorsen Maritime Law       | law      | New York      | NY    | 52
Hiro Tanabe         | CEO             | Tanabe Ostrow LLP            | law      | New York      | NY    | 88
Imani Beaumont      | CEO             | Beaumont Justice Partners    | law      | New York      | NY    | 33
Jonas Feldstein     | CEO             | Feldstein Brandt LLP         | law      | New York      | NY    | 205
Katya Romanenko     | CEO             | Romanenko Immigration Law    | law      | Brooklyn      | NY    | 15
Liam Gallowglass    | CEO             | Gallowglass & Byrne          | law      | New York      | NY    | 76
Mei-Lin Zhao        | CEO             | Zhao Harcourt LLP            | law      | New York      | NY    | 144
Nadia El-Sayed      | CEO             | El-Sayed Corporate Counsel   | law      | New York      | NY    | 39
Oscar Villanueva    | CEO             | Villanueva Trial Lawyers     | law      | Albany        | NY    | 22
Priya Raghunathan   | CEO             | Raghunathan IP               | law      | New York      | NY    | 58
Quentin Abernathy   | CEO             | Abernathy Stone LLP          | law      | New York      | NY    | 410
Rosa Marchetti      | CEO             | Marchetti Family Law         | law      | Buffalo       | NY    | 12
Samuel Osei         | CEO             | Osei Kingsbury LLP           | law      | New York      | NY    | 95
Tamar Weissberg     | CEO             | Weissberg & Lowe             | law      | New York      | NY    | 67
Ulrich Stavenhagen  | CEO             | Stavenhagen Tax Law          | law      | New York      | NY    | 29
Vivienne Laroche    | CEO             | Laroche Arbitration          | law      | New York      | NY    | 48
Wade Hollingsworth  | CEO             | Hollingsworth Energy Law     | law      | Boston        | MA    | 73
Ximena Duarte       | CEO             | Duarte Labor Law             | law      | Chicago       | IL    | 36
Yusuf Karimi        | CEO             | Karimi Pacific LLP           | law      | San Francisco | CA    | 51
Zofia Nowakowska    | Managing Partner | Nowakowska Blake LLP        | law      | New York      | NY    | 130
Jane Doe            | General Counsel | Acme Corp                    | biotech  | New York      | NY    | 340
Arjun Mehta         | CTO             | Docketly                     | SaaS     | San Francisco | CA    | 85
Bea Lindholm        | CTO             | Clausewise                   | SaaS     | Los Angeles   | CA    | 140
Cormac Reilly       | CTO             | Redline Cloud                | SaaS     | San Diego     | CA    | 62
Dalia Ferreira      | CTO             | Exhibit.io                   | SaaS     | Oakland       | CA    | 190
Emil Sandoval       | CTO             | Tinybrief                    | SaaS     | San Jose      | CA    | 12
Farah Nasser        | CTO             | Megamatter                   | SaaS     | Palo Alto     | CA    | 900
Goran Petrov        | CTO             | Signpost Systems             | SaaS     | New York      | NY    | 110
"""

DEALS = """
name                     | contact          | stage       | amount
Document automation      | Jane Doe         | Proposal    | 48000
Intake rollout           | Felix Montague   | Proposal    | 26000
Contract review pilot    | Clara Whitcomb   | Discovery   | 12000
Firm-wide licence        | Quentin Abernathy | Negotiation | 90000
Billing migration        | Hiro Tanabe      | Won         | 18000
"""

MATTERS = """
name                         | client          | stage
Whitcomb v. Harrow Shipping  | Clara Whitcomb  | Discovery
Acme Corp Series B           | Jane Doe        | Closing
Estate of R. Feldstein       | Jonas Feldstein | Probate
"""

# Two lists to begin with; searches add to them and make new ones.
LISTS = """
id           | name              | members
q1-leads     | Q1 Leads          | Felix Montague, Hiro Tanabe, Clara Whitcomb
conference   | Legal Tech Expo   | Jane Doe, Goran Petrov
"""

STATES = {"CA": "California", "IL": "Illinois", "MA": "Massachusetts", "NY": "New York"}
