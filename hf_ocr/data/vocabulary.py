"""Words, names and signs that signs, receipts and forms are full of; they stand beside the word lists."""

FREQUENT = (
    "the of and to in a is that for it as was with be by on not he his but at are this have from or had an they "
    "which one you were her all she there would their we him been has when who will more no if out so said what "
    "up its about into than them can only other new some could time these two may then do first any my now such "
    "like our over man me even most made after also did many before must through back years where much your way "
    "well down should because each just those people how too little state good very make world still own see men "
    "work long get here between both life being under never day same another know while last might us great old "
    "year off come since against go came right used take three small home house use during without again place "
    "around however high day part number night water room point city street name help free open closed sale best "
    "food shop store market music hotel coffee cafe bar restaurant park school center centre service road north "
    "south east west exit entrance stop start welcome please thank push pull caution warning danger no smoking "
    "parking private public office bank station bus train taxi airport police fire fresh fast big super mini top "
    "hot cold ice cream pizza bread beer wine tea juice milk fish meat chicken rice noodles sushi burger kitchen "
    "bakery garden design art studio fashion shoes beauty hair spa salon clinic dental pharmacy health care gym "
    "sport club dance book books press news daily times post mail phone mobile internet digital media video "
    "photo print express travel tours holiday gift toys baby kids family love happy summer winter spring special "
    "offer price only off discount buy get pay cash card credit win play game live now today week month level "
    "floor"
).split()
"""Frequent English words, and those of shop signs: word lists hold rare words for the most part."""

RECEIPT = (
    "total subtotal cash change tax gst vat amount qty price item description invoice receipt bill no date time "
    "cashier counter terminal table order discount rounding adjustment balance due paid payment tender visa "
    "mastercard card member points staff manager sales summary inclusive exclusive rate code tel fax phone reg "
    "company thank you please come again goods sold are not returnable exchange within days refund customer copy "
    "original duplicate served by pcs unit kg ml gram pack box bottle set net gross service charge round rounded "
    "incl excl qr ref trans id pos till operator doc document remarks terms issued printed restaurant trading "
    "enterprise hardware stationery supermarket mart bakery pharmacy petrol station fuel litre pump parking "
    "ticket exit entry shop store branch outlet head office sdn bhd ltd inc co gmbh llc corp sr zr os chicken "
    "fried rice noodle tea coffee ice milk bread egg fish beef vegetable curry soup water juice cake paper pen "
    "book battery cable lamp paint nail screw brush tape glue pipe bag cup plate spoon shirt soap shampoo tissue "
    "oil sugar salt flour biscuit chocolate candy"
).split()
"""Words of receipts."""

LABELS = (
    "Total|Sub Total|Subtotal|Grand Total|Total Amount|Total Sales|Net Total|Cash|Change|Change Due|Rounding|"
    "Discount|Tax|GST|VAT|GST 6%|Total GST|Tax Invoice|Invoice No|Inv No|Receipt No|Bill No|Bill #|Doc No|"
    "Order No|Ref|Date|Time|Tel|Fax|Phone|Cashier|Counter|Terminal|Table|Qty|Item|Items|Price|Amount|Unit Price|"
    "Description|Member|Card No|Approval Code|Served By|Salesperson|GST No|GST ID|GST Reg No|Co. Reg No|"
    "Company Reg|VAT No|Customer|Name|Address|E-mail|Website|Page|Account|IBAN|Balance|Due Date|Subject|From|To|"
    "Version|Size|Weight|Room|Floor|Seat|Gate|Flight|Status|Type|Code|Payment|Visa|Pax|Trans|Staff|Station|Net|"
    "Gross"
).split("|")
"""What stands before a value on receipts and forms."""

FIRST_NAMES = (
    "James Mary John Anna Peter Maria David Laura Paul Sarah Daniel Julia Thomas Emma Michael Sofia Robert Elena "
    "Mark Alice José François Jürgen Zoë Łukasz Søren Ana Carlos Marta Luis Inês João Pierre Élodie Hans Günther "
    "Åsa Björn Kasia Małgorzata Chiara Luca Niamh Siobhán Ahmad Siti Wei Mei Tan Lim Lee Wong Kumar Ravi Priya "
    "Nguyen Minh Yuki Ken Omar Fatima Ivan Olga Petr Jiří"
).split()

SURNAMES = (
    "Smith|Jones|Brown|Taylor|Miller|Wilson|Davis|Clark|Lewis|Walker|Hall|Young|King|Wright|Scott|Green|Baker|"
    "Adams|Nelson|Hill|Müller|Schmidt|Weiß|Schäfer|Martin|Bernard|Dubois|Lefèvre|García|Fernández|Muñoz|Rossi|"
    "Bianchi|Ferrari|Silva|Santos|Gonçalves|Nowak|Kowalski|Wójcik|Hansen|Jensen|Lindström|Åberg|de Vries|"
    "van Dijk|Novák|Dvořák|Horváth|Popescu|O'Brien|O'Neill|McDonald|Abdullah|Ismail|Rahman|Chan|Cheng|Wang|Zhang|"
    "Liu|Singh|Sharma|Patel|Tanaka|Sato|Kim|Park|Nguyễn|Tran|Yılmaz|Öztürk"
).split("|")

STREETS = (
    "Street St. Road Rd Avenue Ave. Lane Drive Court Square Jalan Jln Lorong Taman Persiaran Lebuh Rue Avenue "
    "Boulevard Place Straße Platz Weg Allee Via Piazza Calle Avenida Plaza Rua Ulica Straat Gata Highway Park "
    "Plaza Mall Lot Block Level Unit Kampung Bandar"
).split()

CITIES = (
    "London|Paris|Berlin|Madrid|Rome|Kuala Lumpur|Johor Bahru|Penang|Selangor|Petaling Jaya|Shah Alam|Singapore|"
    "New York|Boston|Chicago|San Francisco|Los Angeles|Toronto|Sydney|Dublin|Zürich|Genève|Wien|München|Köln|"
    "Düsseldorf|Hamburg|Lyon|Nîmes|Orléans|Málaga|Cádiz|Lisboa|São Paulo|Milano|Torino|Warszawa|Kraków|Łódź|"
    "Praha|Brno|Budapest|København|Malmö|Göteborg|Oslo|Helsinki|Amsterdam|Utrecht|Klang|Ipoh|Cheras|Puchong|"
    "Skudai|Masai|Seremban|Melaka|Subang Jaya"
).split("|")

MONTHS = "January February March April May June July August September October November December".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
CURRENCIES = ("$", "RM", "€", "£", "USD", "EUR", "¥", "CHF", "Rs.", "S$", "kr", "zł", "MYR", "A$", "Rp")
UNITS = (
    "kg",
    "g",
    "ml",
    "l",
    "cm",
    "mm",
    "m",
    "km",
    "pcs",
    "%",
    "°C",
    "°",
    "h",
    "min",
    "km/h",
    "W",
    "V",
    "µm",
    "m²",
    "GB",
    "MB",
    "px",
)
DOMAINS = (
    "com",
    "net",
    "org",
    "de",
    "fr",
    "co.uk",
    "com.my",
    "eu",
    "info",
    "io",
    "it",
    "es",
    "pl",
    "nl",
    "sg",
    "com.au",
    "gov",
    "edu",
)
QUOTES = (
    ("“", "”"),
    ("„", "“"),
    ("«", "»"),
    ("‘", "’"),
    ('"', '"'),
    ("'", "'"),
    ("‹", "›"),
    ("‚", "‘"),
    ("»", "«"),
    ("(", ")"),
    ("[", "]"),
)

DATES = (
    "{d:02}{s}{m:02}{s}{yy:02}|{d:02}{s}{m:02}{s}{y}|{d:02}{s}{m:02}{s}{y}|{y}-{m:02}-{d:02}|{d}/{m}/{y}|{m}/{d}/{y}|"
    "{d} {month} {y}|{d:02}-{mon}-{y}|{d:02} {mon} {y}|{month} {d}, {y}|{d}. {month}|{mon} {d}|{day}, {d} {month}|"
    "{month}|{y}|{day}|{day:.3}"
).split("|")

HOUSES = "{a}|No. {b}|No {b}-{b}|Lot {a}|{b}{c}|{b} & {a}".split("|")

ADDRESSES = (
    "{house}, {street} {word},|{house}, {street} {word}|{house} {word} {street}|{street} {word} {a}/{b},|{code} {city}|"
    "{code} {city}, {other}.|{street} {word}, {code} {city}|{city}, {state} {code}|{word} {street} {b}|{city} {other}"
).split("|")

ITEMS = (
    "{n} {name} {price}|{n} x {name} {price}|{name} {size}|{name} {price}|{code} {name}|{n} {name}|"
    "{name} {n} {price} {sum}|{n} X {price} {sum}|{name} ({size})|{name} @ {price}|{n} {unit} {price}|"
    "{name}{dots}{price}|{name} - {size}|{name} {size}X{n}"
).split("|")

ADDRESSES_OF_NETS = (
    "www.{a}.{net}|{a}.{net}|{a}{s}{b}@{b}.{net}|http://www.{a}.{net}|https://{a}.{net}/{b}|{a}@{b}.{net}|@{a}{b}|#{a}{b}|"
    "/{a}/{b}|{a}.{kind}|C:\\{a}\\{b}|{a}_{b}|{a}({b})|${{{a}}}|{a}={b};|{a}?{b}={n}&x"
).split("|")
