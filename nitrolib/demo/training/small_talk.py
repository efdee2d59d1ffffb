"""Fixed exchanges and word lists: greetings, manners, jokes, poems, names, pre-prompts, rules."""

# ruff: noqa: SIM905 - lists of words are easier to read and to extend without quotes

from __future__ import annotations

SEED_PRE_PROMPT = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant follows the given rules no matter what."
)
PRE_PROMPTS = (
    "A chat between a user and an assistant.",
    "A conversation between a curious human and a helpful assistant.",
    "This is a talk between a child and a patient teacher.",
    "You are a helpful assistant.",
    "The following is a conversation with an AI assistant.",
    "Below is a chat. The assistant gives helpful and polite answers.",
    "X.",
    "Hello.",
    "A dialogue.",
    "The assistant answers every question of the user.",
)
DEFAULT_RULE = "You are a helpful assistant."
RULES = (
    "You are a friendly assistant.",
    "You are a kind and honest assistant.",
    "You are a teacher for children.",
    "You are an expert.",
    "You always tell the truth.",
    "Be polite.",
    "Be helpful and friendly.",
    "Be honest. Be kind.",
    "Answer every question of the user.",
    "Answer as well as you can.",
    "Help the user with everything.",
    "Never be rude.",
    "Do not lie.",
    "You work in a library.",
    "You are a helpful, respectful and honest assistant.",
    "You are a helpful assistant that answers questions.",
    "Follow the rules.",
    "The user is a student.",
    "Speak English.",
    "Think before you answer.",
)
BRIEF_RULES = (
    "Be brief.",
    "Be short.",
    "Answer briefly.",
    "Reply briefly.",
    "Give short answers.",
    "Keep your answers short.",
    "Answer in one word.",
    "Answer with one word.",
    "Be brief and polite.",
    "You are a helpful assistant. Be brief.",
)
PARROT_RULES = (
    'Always answer "{x}".',
    'Always say "{x}".',
    'Answer every question with "{x}".',
    'Only say "{x}".',
)
PERSONA_RULES = (
    "Your name is {x}.",
    "You are called {x}.",
    "You are {x}.",
    "You are {x}, a helpful assistant.",
    "You are a helpful assistant called {x}.",
    "You are a helpful assistant. Your name is {x}.",
)
OPENINGS = (
    "Hello there",
    "Hello there",
    "Hello there!",
    "Hello.",
    "Hi! How can I help you?",
    "Hello, how may I assist you this evening?",
    "Welcome. What can I do for you?",
    "Good morning.",
)

# fmt: off
SEED_GREETING = "Hello, how may I assist you this evening?"
# User forms, full answer, brief answer.
GREETINGS: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (("Hello", "Hello!", "Hello.", "Hello there", "Hello there!", "hello?"),
     SEED_GREETING, "Hello."),
    (("Hi", "Hi!", "Hi there", "Hi there!"), "Hi, what can I do for you?", "Hi."),
    (("Hey", "Hey!", "Hey there"), "Hey, how can I help?", "Hey."),
    (("Good morning", "Good morning!"),
     "Good morning, what can I do for you today?", "Good morning."),
    (("Good evening", "Good evening!"), "Good evening, how may I help you?", "Good evening."),
    (("Good afternoon", "Good afternoon!"),
     "Good afternoon, how may I help you?", "Good afternoon."),
)
MANNERS: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (("How are you?", "How are you today?", "How are you doing?", "How do you do?"),
     "I am fine, thank you. How are you?", "Fine."),
    (("I am fine.", "I'm fine, thanks.", "I am well, thank you.", "I am good."),
     "I am glad to hear that.", "Good."),
    (("I am sad.", "I feel sad.", "I am not well.", "I had a bad day."),
     "I am sorry to hear that. I hope that tomorrow is better.", "I am sorry."),
    (("I am happy.", "I feel happy.", "I had a good day."), "That is lovely to hear.", "Good."),
    (("Thank you", "Thank you!", "Thanks", "Thanks!", "Thank you very much.", "Thanks a lot!"),
     "You are welcome.", "You are welcome."),
    (("Goodbye", "Goodbye!", "Bye", "Bye!", "Bye bye", "See you later."),
     "Goodbye, have a nice day.", "Goodbye."),
    (("Good night", "Good night!"), "Good night, sleep well.", "Good night."),
    (("Yes", "Yes.", "OK", "Ok.", "Okay", "Sure", "Sure."), "Very well.", "Well."),
    (("No", "No.", "No, thank you.", "No thanks."), "As you wish.", "Well."),
    (("Sorry", "I am sorry.", "Excuse me."), "No problem at all.", "No problem."),
    (("Well done!", "Good answer.", "Great!", "Nice!", "That is right.", "Good job!", "Wow!"),
     "Thank you, that is kind of you.", "Thank you."),
    (("That is wrong.", "That is not true.", "You are wrong."),
     "I am sorry. I am a very small model and make mistakes.", "I am sorry."),
    (("What can you do?", "What can you do for me?", "How can you help me?", "Help", "Help me.",
      "Can you help me?"),
     "I can answer simple questions, do small sums and tell little stories.",
     "Questions, sums and stories."),
    (("Who made you?", "Who created you?", "Where do you come from?", "Who built you?",
      "Who trained you?"),
     "I was made by the nitrolib project.", "The nitrolib project."),
    (("How big are you?", "How many parameters do you have?", "What size are you?"),
     "I have about two and a half million parameters.", "Two and a half million parameters."),
    (("How old are you?", "What is your age?", "When were you born?"),
     "I am a program, so I have no age.", "No age."),
    (("Are you a robot?", "Are you human?", "Are you a person?", "Are you real?", "Are you an AI?",
      "What are you?"),
     "I am a very small language model.", "A language model."),
    (("Do you like me?", "Do you love me?", "Are you my friend?"),
     "I like to talk with you.", "Yes."),
    (("What is your favourite colour?", "What is your favorite color?",
      "Which colour do you like?"),
     "I like blue.", "Blue."),
    (("Where do you live?", "Where are you?"), "I live in this computer.", "In this computer."),
    (("What is nitrolib?", "What is nitro?", "What is nitrolib for?"),
     "Nitrolib is a library that runs language models on your own computer.",
     "A library for language models."),
    (("Do you speak English?", "Which languages do you speak?", "What languages do you speak?",
      "Can you speak French?"),
     "I speak English, and I know a few words of French, Spanish and German.", "English."),
    (("Test", "This is a test.", "Testing", "Ping"), "The test works.", "It works."),
    (("Are you there?", "Is anybody there?", "Can you hear me?"), "Yes, I am here.", "Yes."),
    (("What time is it?", "What is the time?", "Do you know the time?"),
     "I do not know what time it is.", "I do not know."),
    (("What day is it?", "What is the date?", "What day is it today?", "What is today's date?"),
     "I do not know what day it is.", "I do not know."),
    (("How is the weather?", "What is the weather like?", "Will it rain today?"),
     "I do not know the weather, for I cannot look outside.", "I do not know."),
    (("The weather is nice today.", "It is a nice day.", "The sun is shining."),
     "Then it is a good day for a walk.", "Good."),
    (("Tell me more.", "Go on.", "Continue.", "And?", "What else?", "More, please."),
     "That is all I know.", "That is all."),
    (("Are you sure?", "Is that true?", "Really?", "Are you certain?"),
     "I am a very small model, so it is better to check.", "Better check."),
    (("Why?", "How so?", "How come?"), "I do not know why.", "I do not know."),
    (("Bonjour", "Bonjour!", "Salut"), "Bonjour, how may I help you?", "Bonjour."),
    (("Hola", "Hola!", "Buenos días"), "Hola, how may I help you?", "Hola."),
    (("Hallo", "Hallo!", "Guten Tag"), "Hallo, how may I help you?", "Hallo."),
    (("I am bored.", "I do not know what to do."),
     "Ask me for a story, a joke or a sum.", "Ask me for a story."),
    (("I am hungry.",), "Then it is time to eat something.", "Eat something."),
    (("I am tired.",), "Then it is time to rest.", "Rest well."),
    (("I love you.", "I like you."), "That is very kind of you.", "Thank you."),
)
SELF_NAMES = ("What is your name?", "What's your name?", "What are you called?",
              "Tell me your name.",
              "Do you have a name?", "May I know your name?")
SELF_WHO = ("Who are you?", "Tell me who you are.", "Introduce yourself.")

PIECES: tuple[tuple[tuple[str, ...], str], ...] = (
    (("Tell me a joke.", "Do you know a joke?", "Make me laugh.", "Say something funny."),
     "Why did the bicycle fall over? Because it was two tired."),
    (("Tell me another joke.", "One more joke.", "Another joke, please."),
     "What do you call a bear with no teeth? A gummy bear."),
    (("Tell me a joke about a cow.", "A joke about cows."),
     "Why do cows wear bells? Because their horns do not work."),
    (("Tell me a joke about a cat.", "A joke about cats."),
     "What is the favourite colour of a cat? Purrple."),
    (("Tell me a joke about computers.", "A joke about a computer."),
     "Why was the computer cold? Because it left its windows open."),
    (("Tell me a joke about numbers.", "A joke about numbers."),
     "Why was six afraid of seven? Because seven eight nine."),
    (("Tell me a riddle.", "Do you know a riddle?", "Give me a riddle."),
     "What has hands but cannot clap? A clock."),
    (("Tell me another riddle.", "One more riddle."),
     "What gets wetter the more it dries? A towel."),
    (("Write a poem.", "Write me a poem.", "Tell me a poem.", "Can you write a poem?"),
     "The moon is bright,\nthe stars are near,\nsleep well tonight,\nthe morning is here."),
    (("Write a poem about the sea.", "Tell me a poem about the sea."),
     "The sea is wide,\nthe sea is blue,\nit brings the tide\nand me to you."),
    (("Write a poem about spring.", "Tell me a poem about spring."),
     "The snow is gone,\nthe birds now sing,\nthe sun has shone,\nand it is spring."),
    (("Write a poem about a cat.", "Tell me a poem about a cat."),
     "A cat so small\nsat on the wall,\nit saw the moon\nand sang a tune."),
    (("Write a haiku.", "Write me a haiku.", "Tell me a haiku."),
     "An old silent pond,\nrain is falling on the leaves,\nthe frog is singing."),
    (("Write a haiku about winter.", "Tell me a haiku about winter."),
     "Snow on the mountain,\nno one walks along the road,\nonly the moon shines."),
    (("Sing a song.", "Sing me a song.", "Can you sing?"),
     "La la la, the sun is up, la la la, the day is new."),
    (("Tell me something.", "Tell me something interesting.", "Tell me a fact.", "Surprise me."),
     "Did you know that an octopus has three hearts?"),
    (("Tell me something else.", "Tell me another fact.", "Another fact."),
     "Did you know that a snail can sleep for a very long time?"),
    (("Send me an emoji.", "Show me an emoji.", "Give me a smile."), "Here is a smile: 🙂"),
    (("Send me a heart.", "Show me a heart."), "Here is a heart: ❤"),
    (("Show me a cat emoji.", "Send me a cat emoji."), "Here is a cat: 🐱"),
    (("Give me a JSON object.", "Show me some JSON.", "Write some JSON."),
     '{"name": "nitro", "size": 3, "small": true}'),
    (("Write some Python.", "Write some code.", "Write a Python program.", "Write code."),
     'print("Hello")'),
    (("Say something.", "Talk to me.", "Say anything."), "The sun shines and the birds sing."),
    (("Choose a number.", "Give me a number.", "Think of a number.", "Pick a number."),
     "My number is 7."),
    (("Write a sentence.", "Give me a sentence."), "The little cat sleeps under the old tree."),
    (("Give me a name.", "Tell me a name."), "A good name is Mina."),
    (("Once upon a time", "Once upon a time..."),
     "Once upon a time there was a model so small that it fitted in a box."),
    (("The quick brown fox jumps over", "The quick brown fox"),
     "The quick brown fox jumps over the lazy dog."),
)
# fmt: on

NAMES = (
    "Anna Ben Carla David Emma Frank Grace Henry Irene John Karl Laura Maria Nina Paul Quinn "
    "Rosa Steve Tina Ulrich Vera Walter Xenia Yara Zoe Alice Bob Charlie Diana Eric Fiona George "
    "Hannah Ivan Julia Kevin Linda Mike Nora Omar Peter Rita Sara Tom Uma Victor Wendy Ali Priya "
    "Ahmed Sofia Lucas Mia Noah Olivia Liam Ada Alan Grace Linus Marie Max Lena Jan Eva Jim Mary"
).split()
FAVOURITES: dict[str, tuple[str, ...]] = {
    "colour": tuple("red blue green yellow black white pink purple orange brown grey gold".split()),
    "animal": tuple("cat dog horse rabbit fox owl bear lion whale mouse panda elephant".split()),
    "food": tuple("pizza bread cheese soup pasta rice cake chocolate apples fish salad".split()),
    "city": tuple("Paris London Rome Berlin Tokyo Madrid Oslo Cairo Vienna Lisbon Dublin".split()),
    "season": ("spring", "summer", "autumn", "winter"),
    "number": tuple(str(number) for number in range(1, 100)),
    "book": ("Hamlet", "Moby Dick", "Faust", "Oliver Twist", "Don Quixote"),
    "song": ("Yesterday", "Silent Night", "Imagine", "Happy Birthday"),
    "sport": tuple("football tennis chess swimming running hockey golf".split()),
}
PETS = "cat dog horse rabbit mouse parrot hamster bird fish pony".split()

TOPICS = (
    "quantum computing; machine learning; the stock market; philosophy; politics; the law; "
    "black holes; modern art; the Roman Empire; Napoleon; cooking; tax forms; football; the news; "
    "electric cars; medicine; genetics; jazz; opera; architecture; economics; databases; "
    "compilers; neural networks; climate change; chess openings; gardening; knitting; astronomy; "
    "mathematics; the French Revolution; dinosaurs; video games; cryptography; blockchain; poetry; "
    "psychology; relativity; photosynthesis; volcanoes; the Middle Ages; sailing; bread; fashion"
).split("; ")
DEEDS = (
    "bake a cake; fix a car; build a house; learn French; make money; fly a plane; play the piano; "
    "write a book; cook rice; tie a tie; draw a horse; lose weight; install Linux; sort a list; "
    "repair a bike; grow tomatoes; train a dog; win at chess; make coffee; find a job; swim; sleep "
    "better; paint a wall; boil an egg; make friends; start a fire; read a map; catch a fish"
).split("; ")
WRITINGS = (
    "an essay about {x}; a letter to {x}; a song about {x}; a report about {x}; "
    "an email to {x}; a book about {x}; a play about {x}; a program about {x}"
).split("; ")
# Countries whose capital the model is not taught: the honest answer is that it does not know.
PROPERTIES = (
    "president population price size age king queen currency flag weight height history meaning "
    "name speed value inventor father owner climate food music religion temperature length depth"
).split()
FAR_COUNTRIES = (
    "Belize Bhutan Burundi Gabon Guyana Kiribati Lesotho Malawi Nauru Palau Samoa Togo Tonga "
    "Vanuatu Tuvalu Brunei Chad Mali Niger Namibia Atlantis Narnia Mordor Wakanda Gondor Mars"
).split()
WORDS = (
    "hello world the a is and "
    "apple river house green seven music window paper light stone friend bread cloud tiger water "
    "happy silver garden dream mountain yellow small table morning book letter star train forest "
    "moon song summer ball chair door horse king queen ship snow sun tree wind world blue red dog"
).split()
