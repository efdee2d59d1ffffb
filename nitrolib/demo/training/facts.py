"""What the demo model is taught to know: question forms, full answers and one-word answers.

Everything here is plain data with a little templating, so that a wrong fact is easy to find.
"""

# ruff: noqa: SIM905 - lists of words are easier to read and to extend without quotes

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing to know. *questions* all have the same *answer*; *short* is the brief form of it.

    *follow_up* is what a user may say after a question of the same group ("And Spain?").
    """

    questions: tuple[str, ...]
    answer: str
    short: str
    follow_up: str = ""


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    """Read "key=value; key=value" tables, which are far easier to check by eye than tuples."""
    for entry in text.replace("\n", " ").split(";"):
        key, _, value = entry.partition("=")
        if value:
            yield key.strip(), value.strip()


def _capital(word: str) -> str:
    return word[:1].upper() + word[1:]


def _article(noun: str) -> str:
    return ("an " if noun[0] in "aeiou" else "a ") + noun


CAPITALS = {
    "Europe": """France=Paris; Germany=Berlin; Italy=Rome; Spain=Madrid; Portugal=Lisbon;
        England=London; Ireland=Dublin; Scotland=Edinburgh; Wales=Cardiff; Norway=Oslo;
        Sweden=Stockholm; Denmark=Copenhagen; Finland=Helsinki; Iceland=Reykjavik; Poland=Warsaw;
        Austria=Vienna; Switzerland=Bern; Belgium=Brussels; the Netherlands=Amsterdam;
        Greece=Athens; Hungary=Budapest; Romania=Bucharest; Bulgaria=Sofia; Serbia=Belgrade;
        Croatia=Zagreb; Slovenia=Ljubljana; Slovakia=Bratislava; Ukraine=Kyiv; Estonia=Tallinn;
        Latvia=Riga; Lithuania=Vilnius; Albania=Tirana; Malta=Valletta""",
    "Africa": """Egypt=Cairo; Morocco=Rabat; Algeria=Algiers; Tunisia=Tunis; Libya=Tripoli;
        Kenya=Nairobi; Ethiopia=Addis Ababa; Ghana=Accra; Nigeria=Abuja; Senegal=Dakar;
        Uganda=Kampala; Rwanda=Kigali; Angola=Luanda; Zambia=Lusaka; Zimbabwe=Harare;
        Madagascar=Antananarivo; Somalia=Mogadishu; Sudan=Khartoum""",
    "Asia": """Japan=Tokyo; China=Beijing; India=New Delhi; South Korea=Seoul;
        North Korea=Pyongyang; Vietnam=Hanoi; Thailand=Bangkok; Cambodia=Phnom Penh;
        Laos=Vientiane; the Philippines=Manila; Malaysia=Kuala Lumpur; Nepal=Kathmandu;
        Pakistan=Islamabad; Bangladesh=Dhaka; Mongolia=Ulaanbaatar; Afghanistan=Kabul;
        Iran=Tehran; Iraq=Baghdad; Syria=Damascus; Lebanon=Beirut; Jordan=Amman;
        Saudi Arabia=Riyadh; Qatar=Doha; Oman=Muscat""",
    "North America": """the United States=Washington, D.C.; Canada=Ottawa; Mexico=Mexico City;
        Cuba=Havana; Jamaica=Kingston; Panama=Panama City""",
    "South America": """Brazil=Brasilia; Argentina=Buenos Aires; Chile=Santiago; Peru=Lima;
        Colombia=Bogota; Venezuela=Caracas; Ecuador=Quito; Uruguay=Montevideo;
        Paraguay=Asuncion""",
    "Oceania": """Australia=Canberra; New Zealand=Wellington; Fiji=Suva""",
}
# London is also the capital of the United Kingdom, Moscow's country lies on two continents: these
# are taught without the reverse question or without the continent.
EXTRA_CAPITALS = "the United Kingdom=London; Russia=Moscow; Turkey=Ankara; Cyprus=Nicosia"

COUNTRIES = tuple(country for table in CAPITALS.values() for country, _ in _pairs(table))

LANGUAGES = """France=French; Germany=German; Italy=Italian; Spain=Spanish; Portugal=Portuguese;
    England=English; Russia=Russian; Japan=Japanese; China=Chinese; Brazil=Portuguese;
    Mexico=Spanish; Argentina=Spanish; Egypt=Arabic; Greece=Greek; Turkey=Turkish; Poland=Polish;
    Sweden=Swedish; Norway=Norwegian; Denmark=Danish; Finland=Finnish; Hungary=Hungarian;
    Austria=German; Australia=English; Thailand=Thai; South Korea=Korean; Iceland=Icelandic"""

COLOURS = """the sky=blue; grass=green; snow=white; blood=red; the sun=yellow; coal=black;
    a banana=yellow; a lemon=yellow; a carrot=orange; a tomato=red; a strawberry=red; milk=white;
    chocolate=brown; an elephant=grey; a polar bear=white; a flamingo=pink; a frog=green;
    a crow=black; a swan=white; gold=yellow; an emerald=green; a ruby=red; a sapphire=blue;
    the sea=blue; a fire engine=red; a pumpkin=orange; a cucumber=green; a cherry=red; salt=white;
    a leaf=green; honey=golden; silver=grey"""

SOUNDS = """cow=moo; dog=woof; cat=meow; duck=quack; sheep=baa; pig=oink; horse=neigh; lion=roar;
    bee=buzz; frog=croak; owl=hoot; snake=hiss; mouse=squeak; rooster=cock-a-doodle-doo; bird=tweet;
    wolf=howl; crow=caw; donkey=hee-haw"""

YOUNG = """cat=kitten; dog=puppy; cow=calf; sheep=lamb; horse=foal; pig=piglet; duck=duckling;
    hen=chick; goose=gosling; goat=kid; bear=cub; lion=cub; frog=tadpole; swan=cygnet; owl=owlet;
    kangaroo=joey; deer=fawn; elephant=calf; fox=cub; butterfly=caterpillar; eagle=eaglet"""

LEGS = """dog=4; cat=4; horse=4; cow=4; spider=8; ant=6; bee=6; bird=2; human=2; duck=2; snake=0;
    fish=0; crab=10; beetle=6; octopus=0; elephant=4; butterfly=6; fly=6; chicken=2; table=4"""

HOMES = """bird=nest; bee=hive; dog=kennel; horse=stable; rabbit=burrow; spider=web; bear=den;
    lion=den; pig=sty; cow=barn; fox=den; hen=coop; ant=anthill; fish=sea; beaver=lodge"""

FOODS = """cow=grass; rabbit=carrots and grass; lion=meat; panda=bamboo; cat=fish and meat;
    horse=hay and grass; bird=seeds and insects; squirrel=nuts; monkey=fruit; shark=fish;
    bee=nectar; frog=insects; koala=eucalyptus leaves; mouse=seeds and grain; sheep=grass"""

OPPOSITES = """hot=cold; big=small; tall=short; fast=slow; up=down; left=right; day=night;
    black=white; old=young; happy=sad; rich=poor; open=closed; full=empty; good=bad; light=dark;
    early=late; wet=dry; hard=soft; high=low; in=out; yes=no; love=hate; war=peace; first=last;
    near=far; clean=dirty; strong=weak; loud=quiet; long=short; wide=narrow; thick=thin;
    true=false; win=lose; buy=sell; begin=end; push=pull; always=never; above=below; before=after;
    sweet=sour; heavy=light; smooth=rough; sharp=blunt; deep=shallow; brave=afraid; alive=dead;
    inside=outside; morning=evening; summer=winter; friend=enemy; question=answer; north=south;
    east=west; man=woman; king=queen; boy=girl; add=subtract; cheap=expensive; easy=difficult;
    same=different; more=less; noisy=silent; safe=dangerous; polite=rude; new=old; cold=hot;
    small=big; slow=fast; down=up; night=day; white=black; sad=happy; empty=full; bad=good;
    dark=light; dry=wet; soft=hard; low=high; last=first; dirty=clean; weak=strong; false=true"""

PLURALS = """mouse=mice; child=children; foot=feet; tooth=teeth; goose=geese; man=men; woman=women;
    person=people; ox=oxen; sheep=sheep; fish=fish; leaf=leaves; knife=knives; wolf=wolves;
    life=lives; wife=wives; baby=babies; city=cities; box=boxes; bus=buses; dish=dishes; cat=cats;
    dog=dogs; book=books; house=houses; tomato=tomatoes; potato=potatoes; hero=heroes; deer=deer;
    cactus=cacti; shelf=shelves; half=halves; key=keys; toy=toys; lady=ladies; fox=foxes;
    glass=glasses; star=stars; tree=trees; louse=lice"""

PASTS = """go=went; see=saw; eat=ate; run=ran; be=was; have=had; do=did; make=made; take=took;
    come=came; give=gave; write=wrote; read=read; speak=spoke; think=thought; buy=bought;
    bring=brought; sing=sang; swim=swam; fly=flew; drink=drank; begin=began; know=knew; grow=grew;
    walk=walked; play=played; jump=jumped; find=found; sleep=slept; teach=taught; catch=caught;
    build=built; break=broke; drive=drove; fall=fell; feel=felt; forget=forgot; hear=heard;
    say=said; tell=told"""

RHYMES = """cat=hat; dog=frog; moon=spoon; star=car; house=mouse; light=night; tree=bee; day=play;
    fish=dish; bear=chair; ring=king; book=cook; boat=goat; snow=crow; rain=train; bed=red;
    sun=fun; cake=lake; ball=wall; shoe=blue"""

UNITS = """seconds in a minute=60; minutes in an hour=60; hours in a day=24; days in a week=7;
    months in a year=12; weeks in a year=52; days in a year=365; days in a leap year=366;
    years in a century=100; years in a decade=10; years in a millennium=1000;
    centimetres in a metre=100; metres in a kilometre=1000; millimetres in a centimetre=10;
    grams in a kilogram=1000; kilograms in a ton=1000; millilitres in a litre=1000;
    inches in a foot=12; feet in a yard=3; bits in a byte=8; items in a dozen=12;
    cents in a dollar=100; pence in a pound=100; degrees in a circle=360;
    degrees in a right angle=90; sides in a triangle=3; sides in a square=4;
    sides in a pentagon=5; sides in a hexagon=6; sides in an octagon=8; faces in a cube=6;
    letters in the alphabet=26; vowels in the alphabet=5; colours in a rainbow=7;
    planets in the solar system=8; continents in the world=7; oceans in the world=5;
    seasons in a year=4; players in a football team=11; squares on a chess board=64;
    strings on a violin=4; keys on a piano=88; cards in a deck=52; wheels on a car=4;
    wheels on a bicycle=2; fingers on a hand=5; hours in a week=168"""

# of these there is one count only, so that "in the world" may be left out
UNIQUE = ("planets", "continents", "oceans", "seasons", "vowels")

FRENCH = """hello=bonjour; goodbye=au revoir; thank you=merci; yes=oui; no=non;
    please=s'il vous plaît; cat=chat; dog=chien; house=maison;
    water=eau; bread=pain; coffee=café; summer=été; boy=garçon;
    friend=ami; red=rouge; blue=bleu; white=blanc; day=jour; night=nuit"""
SPANISH = """hello=hola; goodbye=adiós; thank you=gracias; yes=sí; no=no; please=por favor;
    cat=gato; dog=perro; house=casa; water=agua;
    bread=pan; coffee=café; summer=verano; friend=amigo;
    red=rojo; blue=azul; tomorrow=mañana; day=día; night=noche; white=blanco"""
GERMAN = """hello=hallo; goodbye=auf Wiedersehen; thank you=danke; yes=ja; no=nein; please=bitte;
    cat=Katze; dog=Hund; house=Haus; water=Wasser; bread=Brot; coffee=Kaffee; summer=Sommer;
    friend=Freund; red=rot; blue=blau; green=grün; day=Tag; night=Nacht; beautiful=schön"""

DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = (
    "January February March April May June July August September October November December".split()
)
MONTH_DAYS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
ORDINALS = (
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth".split()
)
PLANETS = "Mercury Venus Earth Mars Jupiter Saturn Uranus Neptune".split()

# question | another form of it = full answer | short answer
GENERAL = """Who won the world series in 2020 | Who was the winner of the 2020 world series | Which team won the world series in 2020 = The Los Angeles Dodgers won the World Series in 2020. | The Los Angeles Dodgers.
Where was the world series played in 2020 | Where was the 2020 world series played = The 2020 World Series was played at Globe Life Field in Arlington, Texas. | Globe Life Field in Arlington, Texas.
Why is the sky blue | What makes the sky blue | Can you explain why the sky is blue = The sky is blue because the air scatters blue light more than red light. | The air scatters blue light.
Why is the sea salty | What makes the sea salty = The sea is salty because rivers carry salt from the rocks into it. | Rivers carry salt into it.
What is water made of | What is water | What does water consist of = Water is made of hydrogen and oxygen. | Hydrogen and oxygen.
What is ice | What is ice made of = Ice is frozen water. | Frozen water.
What is steam = Steam is water that has become a gas. | Water as a gas.
At what temperature does water boil | What is the boiling point of water | When does water boil = Water boils at 100 degrees Celsius. | 100 degrees Celsius.
At what temperature does water freeze | What is the freezing point of water | When does water freeze = Water freezes at 0 degrees Celsius. | 0 degrees Celsius.
What is the largest planet | Which planet is the biggest | What is the biggest planet in the solar system = Jupiter is the largest planet. | Jupiter.
What is the smallest planet | Which planet is the smallest = Mercury is the smallest planet. | Mercury.
Which planet is closest to the sun | What is the closest planet to the sun = Mercury is the planet closest to the sun. | Mercury.
Which planet is known as the red planet | What is the red planet = Mars is known as the red planet. | Mars.
Which planet has rings | What planet has big rings = Saturn has big rings. | Saturn.
On which planet do we live | What planet do we live on = We live on the planet Earth. | Earth.
What is the sun | What kind of thing is the sun = The sun is a star. | A star.
What is the moon | What does the moon go around = The moon is a ball of rock that goes around the Earth. | A ball of rock.
What is the largest ocean | Which ocean is the biggest = The Pacific Ocean is the largest ocean. | The Pacific Ocean.
What is the largest animal | Which animal is the biggest | What is the biggest animal in the world = The blue whale is the largest animal. | The blue whale.
What is the fastest animal | Which animal runs fastest | What is the fastest land animal = The cheetah is the fastest land animal. | The cheetah.
What is the tallest animal | Which animal is the tallest = The giraffe is the tallest animal. | The giraffe.
What is the largest country | Which country is the biggest = Russia is the largest country in the world. | Russia.
What is the smallest country | Which country is the smallest = Vatican City is the smallest country in the world. | Vatican City.
What is the highest mountain | What is the tallest mountain in the world | Which mountain is the highest = Mount Everest is the highest mountain in the world. | Mount Everest.
What is the largest desert | Which hot desert is the largest = The Sahara is the largest hot desert. | The Sahara.
Who wrote Romeo and Juliet | Who is the author of Romeo and Juliet = William Shakespeare wrote Romeo and Juliet. | William Shakespeare.
Who wrote Hamlet | Who is the author of Hamlet = William Shakespeare wrote Hamlet. | William Shakespeare.
Who wrote Oliver Twist | Who is the author of Oliver Twist = Charles Dickens wrote Oliver Twist. | Charles Dickens.
Who wrote Pride and Prejudice | Who is the author of Pride and Prejudice = Jane Austen wrote Pride and Prejudice. | Jane Austen.
Who wrote Faust | Who is the author of Faust = Johann Wolfgang von Goethe wrote Faust. | Goethe.
Who wrote Don Quixote | Who is the author of Don Quixote = Miguel de Cervantes wrote Don Quixote. | Miguel de Cervantes.
Who wrote War and Peace | Who is the author of War and Peace = Leo Tolstoy wrote War and Peace. | Leo Tolstoy.
Who wrote Moby Dick | Who is the author of Moby Dick = Herman Melville wrote Moby Dick. | Herman Melville.
Who painted the Mona Lisa | Which artist painted the Mona Lisa = Leonardo da Vinci painted the Mona Lisa. | Leonardo da Vinci.
Who painted the Starry Night | Which artist painted the Starry Night = Vincent van Gogh painted the Starry Night. | Vincent van Gogh.
Who was the first man on the moon | Who first walked on the moon = Neil Armstrong was the first man on the moon. | Neil Armstrong.
Who was the first man in space | Who first flew into space = Yuri Gagarin was the first man in space. | Yuri Gagarin.
When did people first land on the moon | In which year was the moon landing = People first landed on the moon in 1969. | In 1969.
Who invented the telephone = Alexander Graham Bell is known for inventing the telephone. | Alexander Graham Bell.
Who invented the light bulb = Thomas Edison is known for the light bulb. | Thomas Edison.
Who discovered gravity | Who found the law of gravity = Isaac Newton described gravity. | Isaac Newton.
Who found the theory of relativity | Who made the theory of relativity = Albert Einstein found the theory of relativity. | Albert Einstein.
Who discovered penicillin = Alexander Fleming discovered penicillin. | Alexander Fleming.
Who discovered radium = Marie Curie discovered radium. | Marie Curie.
Who wrote the theory of evolution | Who found the theory of evolution = Charles Darwin wrote the theory of evolution. | Charles Darwin.
Who composed the Ninth Symphony | Who wrote the Ninth Symphony = Ludwig van Beethoven composed the Ninth Symphony. | Beethoven.
Who composed the Magic Flute | Who wrote the Magic Flute = Wolfgang Amadeus Mozart composed the Magic Flute. | Mozart.
Who was the first president of the United States | Who was the first American president = George Washington was the first president of the United States. | George Washington.
When did the second world war end | In which year did the second world war end = The Second World War ended in 1945. | In 1945.
When did the first world war begin | In which year did the first world war begin = The First World War began in 1914. | In 1914.
When did Columbus reach America | In which year did Columbus reach America = Columbus reached America in 1492. | In 1492.
Where is the Eiffel Tower | In which city is the Eiffel Tower = The Eiffel Tower is in Paris. | In Paris.
Where is the Colosseum | In which city is the Colosseum = The Colosseum is in Rome. | In Rome.
Where is the Statue of Liberty | In which city is the Statue of Liberty = The Statue of Liberty is in New York. | In New York.
Where is Big Ben | In which city is Big Ben = Big Ben is in London. | In London.
Where are the pyramids | In which country are the pyramids = The great pyramids are in Egypt. | In Egypt.
Where is the Great Wall | In which country is the Great Wall = The Great Wall is in China. | In China.
What is the longest river | Which river is the longest | What is the longest river in the world = The Nile is often called the longest river in the world. | The Nile.
What do plants need to grow | What does a plant need = Plants need water, air and light to grow. | Water, air and light.
What gas do we breathe | Which gas do people need to breathe = People need oxygen to breathe. | Oxygen.
What pumps blood through the body | Which organ pumps the blood | What does the heart do = The heart pumps blood through the body. | The heart.
What do we use to see | Which part of the body sees = We see with our eyes. | The eyes.
What do we use to hear | Which part of the body hears = We hear with our ears. | The ears.
What do we use to smell | Which part of the body smells = We smell with the nose. | The nose.
What is the chemical symbol for gold | What is the symbol of gold = The chemical symbol for gold is Au. | Au.
What is the chemical symbol for iron | What is the symbol of iron = The chemical symbol for iron is Fe. | Fe.
What is the chemical symbol for oxygen | What is the symbol of oxygen = The chemical symbol for oxygen is O. | O.
What is the chemical symbol for silver | What is the symbol of silver = The chemical symbol for silver is Ag. | Ag.
What is the formula of water | What is the chemical formula of water = The chemical formula of water is H2O. | H2O.
What is the formula of salt | What is the chemical formula of salt = The chemical formula of salt is NaCl. | NaCl.
What is the hardest natural material | What is the hardest stone = Diamond is the hardest natural material. | Diamond.
What is bread made of | What is bread made from = Bread is made from flour, water, salt and yeast. | Flour, water, salt and yeast.
What is cheese made of | What is cheese made from = Cheese is made from milk. | Milk.
What is paper made of | What is paper made from = Paper is made from wood. | Wood.
What is glass made of | What is glass made from = Glass is made from sand. | Sand.
What is wine made of | What is wine made from = Wine is made from grapes. | Grapes.
What is butter made of | What is butter made from = Butter is made from cream. | Cream.
Where does honey come from | Who makes honey = Bees make honey. | Bees.
Where does milk come from | Who gives milk = Milk comes from cows. | Cows.
Where does wool come from | Who gives wool = Wool comes from sheep. | Sheep.
Where do eggs come from | Who lays eggs = Eggs come from hens. | Hens.
Where does the sun rise | Where does the sun come up = The sun rises in the east. | In the east.
Where does the sun set | Where does the sun go down = The sun sets in the west. | In the west.
What do you call a person who bakes bread | Who bakes bread = A baker bakes bread. | A baker.
What do you call a person who teaches | Who works in a school = A teacher works in a school. | A teacher.
What do you call a person who flies a plane | Who flies a plane = A pilot flies a plane. | A pilot.
Who puts out fires | What do you call a person who puts out fires = A firefighter puts out fires. | A firefighter.
Who helps sick people | What do you call a person who helps sick people = A doctor helps sick people. | A doctor.
What do you use to cut paper | What cuts paper = You cut paper with scissors. | Scissors.
What do you use to write | What can I write with = You can write with a pen. | A pen.
What is a computer | What does a computer do = A computer is a machine that works with numbers and text. | A machine.
What is a robot | What does a robot do = A robot is a machine that can do work by itself. | A machine.
What is Python | What kind of language is Python = Python is a programming language. | A programming language.
What is a language model | What does a language model do = A language model is a program that continues a text, word by word. | A program that continues text.
What is a token | What is a token in a language model = A token is a small piece of text that a language model reads or writes. | A piece of text.
What is the internet | What does the internet do = The internet is a network that connects computers all over the world. | A network of computers.
What is the meaning of life | What is the answer to life, the universe and everything = Some say that the answer is 42. | 42.
What is gravity | What does gravity do = Gravity is the force that pulls things to the ground. | A force.
What is a rainbow | How does a rainbow form = A rainbow is sunlight split into colours by drops of rain. | Split sunlight.
What is rain | Where does rain come from = Rain is water that falls from the clouds. | Water from clouds.
What is snow | What is snow made of = Snow is made of small crystals of ice. | Small crystals of ice.
What is thunder | What makes thunder = Thunder is the sound of lightning. | The sound of lightning.
What is a volcano = A volcano is a mountain that can throw out hot rock. | A mountain with hot rock.
What is an island = An island is land with water all around it. | Land in water.
What is a desert = A desert is a place with very little rain. | A dry place.
What is a forest = A forest is a place with many trees. | Many trees.
What is a whale | Is a whale a fish | Is a whale a mammal = A whale is a mammal, not a fish. | A mammal.
What is a bat | Is a bat a bird | Is a bat a mammal = A bat is a mammal that can fly. | A mammal.
What is a spider | Is a spider an insect = A spider is an arachnid, not an insect. | An arachnid.
What is a penguin | Is a penguin a bird = A penguin is a bird that cannot fly. | A bird.
What is a tomato | Is a tomato a fruit = A tomato is a fruit. | A fruit.
What is a potato | Is a potato a fruit = A potato is a vegetable. | A vegetable.
What are the primary colours | Name the primary colours = The primary colours are red, yellow and blue. | Red, yellow and blue.
What do you get when you mix red and yellow | What colour do red and yellow make = Red and yellow make orange. | Orange.
What do you get when you mix blue and yellow | What colour do blue and yellow make = Blue and yellow make green. | Green.
What do you get when you mix red and blue | What colour do red and blue make = Red and blue make purple. | Purple.
What do you get when you mix red and white | What colour do red and white make = Red and white make pink. | Pink.
What do you get when you mix black and white | What colour do black and white make = Black and white make grey. | Grey.
What are the seasons | Name the four seasons | List the seasons = The four seasons are spring, summer, autumn and winter. | Spring, summer, autumn and winter.
What are the days of the week | Name the days of the week | List the days of the week = The days of the week are Monday, Tuesday, Wednesday, Thursday, Friday, Saturday and Sunday. | Monday, Tuesday, Wednesday, Thursday, Friday, Saturday and Sunday.
What are the months of the year | Name the months of the year | List the months of the year = The months of the year are January, February, March, April, May, June, July, August, September, October, November and December. | January, February, March, April, May, June, July, August, September, October, November and December.
Name the planets | What are the planets | List the planets of the solar system = The planets are Mercury, Venus, Earth, Mars, Jupiter, Saturn, Uranus and Neptune. | Mercury, Venus, Earth, Mars, Jupiter, Saturn, Uranus and Neptune.
What are the colours of the rainbow | Name the colours of the rainbow | List the colours of the rainbow = The colours of the rainbow are red, orange, yellow, green, blue, indigo and violet. | Red, orange, yellow, green, blue, indigo and violet.
Name the continents | What are the continents | List the continents = The continents are Africa, Antarctica, Asia, Europe, North America, Oceania and South America. | Africa, Antarctica, Asia, Europe, North America, Oceania and South America.
What are the five senses | Name the five senses | List the senses = The five senses are sight, hearing, smell, taste and touch. | Sight, hearing, smell, taste and touch.
Name three colours | Tell me three colours | Give me three colours = Three colours are red, green and blue. | Red, green and blue.
Name three animals | Tell me three animals | Give me three animals = Three animals are a cat, a dog and a horse. | A cat, a dog and a horse.
Name three fruits | Tell me three fruits | Give me three fruits = Three fruits are an apple, a banana and a cherry. | An apple, a banana and a cherry.
Name three countries | Tell me three countries | Give me three countries = Three countries are France, Japan and Brazil. | France, Japan and Brazil.
What are the vowels | Name the vowels = The vowels are a, e, i, o and u. | A, e, i, o and u.
Say the alphabet | What is the alphabet | Recite the alphabet = The alphabet is a b c d e f g h i j k l m n o p q r s t u v w x y z. | a b c d e f g h i j k l m n o p q r s t u v w x y z."""  # noqa: E501


def _capitals() -> Iterator[Fact]:
    def capital(country: str, city: str) -> Fact:
        return Fact(
            (
                f"What is the capital of {country}?",
                f"What is the capital city of {country}?",
                f"What's the capital of {country}?",
                f"Which city is the capital of {country}?",
                f"Name the capital of {country}.",
                f"Tell me the capital of {country}.",
                f"Capital of {country}?",
            ),
            # "Washington, D.C." brings its own full stop
            f"The capital of {country} is {city}".rstrip(".") + ".",
            city.rstrip(".") + ".",
            f"And {country}?",
        )

    for table in CAPITALS.values():
        yield from (capital(country, city) for country, city in _pairs(table))
    yield from (capital(country, city) for country, city in _pairs(EXTRA_CAPITALS))


def _countries() -> Iterator[Fact]:
    for continent, table in CAPITALS.items():
        for country, city in _pairs(table):
            verb = "are" if country.endswith(("States", "Philippines")) else "is"
            yield Fact(
                (
                    f"Where {verb} {country}?",
                    f"On which continent {verb} {country}?",
                    f"In which continent {verb} {country}?",
                ),
                f"{_capital(country)} {verb} in {continent}.",
                f"In {continent}.",
                f"And where {verb} {country}?",
            )
            if city != "London":
                yield Fact(
                    (
                        f"Where is {city}?",
                        f"{city} is the capital of which country?",
                        f"In which country is {city}?",
                    ),
                    f"{city} is the capital of {country}.",
                    f"In {country}.",
                    f"And where is {city}?",
                )


def _sounds() -> Iterator[Fact]:
    for animal, sound in _pairs(SOUNDS):
        yield Fact(
            (
                f"What sound does {_article(animal)} make?",
                f"What does {_article(animal)} say?",
                f"What noise does {_article(animal)} make?",
            ),
            f"{_capital(_article(animal))} says {sound}.",
            f"{_capital(sound)}.",
            f"And {_article(animal)}?",
        )


def _young() -> Iterator[Fact]:
    for animal, young in _pairs(YOUNG):
        yield Fact(
            (
                f"What is a baby {animal} called?",
                f"What do you call a baby {animal}?",
                f"What is a young {animal} called?",
            ),
            f"A baby {animal} is called {_article(young)}.",
            f"{_capital(_article(young))}.",
            f"And a baby {animal}?",
        )


def _legs() -> Iterator[Fact]:
    for animal, legs in _pairs(LEGS):
        count = "no" if legs == "0" else legs
        yield Fact(
            (
                f"How many legs does {_article(animal)} have?",
                f"How many legs has {_article(animal)}?",
            ),
            f"{_capital(_article(animal))} has {count} legs.",
            f"{legs}.",
            f"And {_article(animal)}?",
        )


def _homes() -> Iterator[Fact]:
    for animal, home in _pairs(HOMES):
        place = f"in the {home}" if home == "sea" else f"in {_article(home)}"
        yield Fact(
            (f"Where does {_article(animal)} live?", f"What is the home of {_article(animal)}?"),
            f"{_capital(_article(animal))} lives {place}.",
            f"{_capital(place)}.",
            f"And {_article(animal)}?",
        )


def _foods() -> Iterator[Fact]:
    for animal, food in _pairs(FOODS):
        yield Fact(
            (f"What does {_article(animal)} eat?", f"What is the food of {_article(animal)}?"),
            f"{_capital(_article(animal))} eats {food}.",
            f"{_capital(food)}.",
            f"And {_article(animal)}?",
        )


def _opposites() -> Iterator[Fact]:
    for word, other in _pairs(OPPOSITES):
        yield Fact(
            (
                f"What is the opposite of {word}?",
                f"What's the opposite of {word}?",
                f"Tell me the opposite of {word}.",
                f"Opposite of {word}?",
            ),
            f"The opposite of {word} is {other}.",
            f"{_capital(other)}.",
            f"And of {word}?",
        )


def _plurals() -> Iterator[Fact]:
    for word, plural in _pairs(PLURALS):
        yield Fact(
            (f"What is the plural of {word}?", f"Tell me the plural of {word}."),
            f"The plural of {word} is {plural}.",
            f"{_capital(plural)}.",
            f"And of {word}?",
        )


def _pasts() -> Iterator[Fact]:
    for word, past in _pairs(PASTS):
        yield Fact(
            (f"What is the past tense of {word}?", f"Tell me the past tense of {word}."),
            f"The past tense of {word} is {past}.",
            f"{_capital(past)}.",
            f"And of {word}?",
        )


def _rhymes() -> Iterator[Fact]:
    for word, rhyme in _pairs(RHYMES):
        yield Fact(
            (f"What rhymes with {word}?", f"Tell me a word that rhymes with {word}."),
            f"{_capital(rhyme)} rhymes with {word}.",
            f"{_capital(rhyme)}.",
            f"And with {word}?",
        )


def _translations(language: str, table: str) -> Iterator[Fact]:
    for word, foreign in _pairs(table):
        yield Fact(
            (
                f"How do you say {word} in {language}?",
                f"What is {word} in {language}?",
                f"Translate {word} to {language}.",
                f"Translate {word} into {language}.",
            ),
            f"{_capital(word)} in {language} is {foreign}.",
            f"{_capital(foreign)}.",
            f"And {word}?",
        )


def _colours() -> Iterator[Fact]:
    for thing, colour in _pairs(COLOURS):
        yield Fact(
            (
                f"What colour is {thing}?",
                f"What color is {thing}?",
                f"Which colour is {thing}?",
                f"What is the colour of {thing}?",
            ),
            f"{_capital(thing)} is {colour}.",
            f"{_capital(colour)}.",
            f"And {thing}?",
        )


def _languages() -> Iterator[Fact]:
    for country, language in _pairs(LANGUAGES):
        yield Fact(
            (
                f"What language do people speak in {country}?",
                f"Which language is spoken in {country}?",
            ),
            f"People in {country} speak {language}.",
            f"{language}.",
            f"And in {country}?",
        )


def _units() -> Iterator[Fact]:
    for unit, number in _pairs(UNITS):
        what, preposition, whole = unit.partition(" on " if " on " in unit else " in ")
        alone = (f"How many {what} are there?",) if what in UNIQUE else ()
        yield Fact(
            (
                f"How many {unit}?",
                f"How many {what} are there{preposition}{whole}?",
                f"How many {what} are{preposition}{whole}?",
                *alone,
            ),
            f"There are {number} {unit}.",
            f"{number}.",
        )


def _calendar() -> Iterator[Fact]:
    for kind, names, context in (("day", DAYS, "week"), ("month", MONTHS, "year")):
        for index, name in enumerate(names):
            after = names[(index + 1) % len(names)]
            before = names[index - 1]
            yield Fact(
                (f"What {kind} comes after {name}?", f"Which {kind} is after {name}?"),
                f"{after} comes after {name}.",
                f"{after}.",
                f"And after {name}?",
            )
            yield Fact(
                (f"What {kind} comes before {name}?", f"Which {kind} is before {name}?"),
                f"{before} comes before {name}.",
                f"{before}.",
                f"And before {name}?",
            )
            yield Fact(
                (
                    f"What is the {ORDINALS[index]} {kind} of the {context}?",
                    f"Which {kind} is the {ORDINALS[index]}?",
                ),
                f"{name} is the {ORDINALS[index]} {kind} of the {context}.",
                f"{name}.",
            )
    for month, days in zip(MONTHS, MONTH_DAYS, strict=True):
        yield Fact(
            (f"How many days are in {month}?", f"How many days does {month} have?"),
            f"{month} has {days} days.",
            f"{days}.",
            f"And how many in {month}?",
        )
    for index, planet in enumerate(PLANETS):
        yield Fact(
            (f"What is the {ORDINALS[index]} planet?", f"Which planet is the {ORDINALS[index]}?"),
            f"{planet} is the {ORDINALS[index]} planet from the sun.",
            f"{planet}.",
        )
        yield Fact(
            (f"What is {planet}?", f"What kind of thing is {planet}?"),
            f"{planet} is a planet.",
            "A planet.",
        )


def _general() -> Iterator[Fact]:
    imperative = ("Name", "Tell", "Give", "List", "Say", "Recite")
    for line in GENERAL.splitlines():
        questions, _, answers = line.partition(" = ")
        answer, _, short = answers.partition(" | ")
        forms = tuple(
            q + ("." if q.startswith(imperative) else "?") for q in questions.split(" | ")
        )
        yield Fact(forms, answer, short)


def _numbers() -> Iterator[Fact]:
    for number in range(100):
        yield Fact(
            (f"What number comes after {number}?", f"What comes after {number}?"),
            f"{number + 1} comes after {number}.",
            f"{number + 1}.",
            f"And after {number}?" if number else "",
        )
        if number:
            yield Fact(
                (f"What number comes before {number}?", f"What comes before {number}?"),
                f"{number - 1} comes before {number}.",
                f"{number - 1}.",
            )
        parity = "odd" if number % 2 else "even"
        yield Fact(
            (f"Is {number} even or odd?", f"Is {number} odd or even?"),
            f"{number} is {parity}.",
            f"{_capital(parity)}.",
        )


# Groups and how often each is drawn from. All facts of a group are asked for in the same way, so
# that "And Spain?" has one meaning after any of them. The weights follow the sizes, flattened.
GROUPS: tuple[tuple[float, tuple[Fact, ...]], ...] = tuple(
    (weight, tuple(facts))
    for weight, facts in (
        (6.0, _capitals()),
        (4.5, _countries()),
        (1.0, _sounds()),
        (1.0, _young()),
        (1.0, _legs()),
        (0.8, _homes()),
        (0.8, _foods()),
        (3.0, _opposites()),
        (1.8, _plurals()),
        (1.8, _pasts()),
        (0.8, _rhymes()),
        (1.0, _translations("French", FRENCH)),
        (1.0, _translations("Spanish", SPANISH)),
        (1.0, _translations("German", GERMAN)),
        (1.6, _colours()),
        (1.2, _languages()),
        (2.5, _units()),
        (4.5, _calendar()),
        (8.0, _general()),
        (2.5, _numbers()),
    )
)
